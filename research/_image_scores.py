"""Train the decoders of the study `generation`, and score images generated from a space.

Metrics of the evaluated split are named `images/<source>/<score>` and `images/<control>/<score>`, those of the
validation split `val/<source>/<score>` and `val/recall@1`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from research._image_bench import GenerationBench, make_bench, scores_of
from unialign.data import EmbeddingStore
from unialign.errors import ConfigError
from unialign.evaluation import Statistic, evaluate
from unialign.experiments import run_jobs
from unialign.generation import (
    DecoderConfig,
    Extractor,
    FlowDecoder,
    embed_items,
    lite2,
    pixels,
    train_decoder,
)
from unialign.io import canonical_json
from unialign.space import Space

__all__ = ["DECODERS", "SHOWN", "score_images", "train_decoders"]

DECODERS = "decoders"
# The scores that are recorded, and the scores that have intervals.
SHOWN = ("fd", "kid", "recall@10", "mrr", "cosine")
_RESAMPLED = ("fd", "recall@10", "mrr")
# The maximum number of resamples for FD. It takes milliseconds per resample and is computed thousands of times in a
# study.
_MAX_RESAMPLES = 300
_EXTRACTORS: Mapping[str, Callable[[], Extractor]] = {"lite2": lite2, "pixels": pixels}


def train_decoders(
    store: EmbeddingStore, config: Mapping[str, Any], seeds: Sequence[int], folder: Path, *, image: str, workers: int
) -> None:
    jobs: list[dict[str, Any]] = [
        {"store": str(store.path), "config": {**config, "seed": seed}, "image": image, "out": _place(folder, seed)}
        for seed in seeds
    ]
    left = [job for job in jobs if not (job["out"] / "decoder" / "config.json").exists()]
    for _ in run_jobs(_train, left, min(workers, max(1, len(left)))):
        pass


def _train(job: Mapping[str, Any]) -> None:
    store = EmbeddingStore.open(job["store"])
    config = DecoderConfig.from_dict(job["config"])
    train_decoder(store, config, image=job["image"], out=job["out"], resume="auto", device="cpu", progress="none")


def _place(folder: Path, seed: int) -> Path:
    return folder / DECODERS / f"seed-{seed}"


def score_images(
    space: Space,
    store: EmbeddingStore,
    split: str,
    folder: Path,
    *,
    decoder: Mapping[str, Any],
    seeds: Sequence[int],
    anchor: str,
    sources: Sequence[str],
    extractor: str = "lite2",
    controls: str = "no",
    validation: str = "yes",
) -> dict[str, float | Statistic]:
    named = canonical_json({**decoder}).decode()
    common = (folder, str(store.path), named, tuple(seeds), extractor, anchor)
    test = _bench(*common, split)
    found: dict[str, float | Statistic] = {}
    if controls == "yes":
        for name, images in test.controls(space).items():
            numbers = test.score(images).numbers
            found |= {f"images/{name}/{score}": numbers[score] for score in SHOWN}
    wanted = {source: tuple(source.split("+")) for source in sources}
    for name, scores in scores_of(test, space, wanted).items():
        numbers = scores.numbers
        drawn = {s: scores.statistics[s] for s in _RESAMPLED} | {"fd": _FirstResamples(scores.statistics["fd"])}
        found |= {f"images/{name}/{s}": drawn.get(s, numbers[s]) for s in SHOWN}
    if validation != "yes":
        return found
    val = _bench(*common, "val")
    alone = {name: modalities for name, modalities in wanted.items() if len(modalities) == 1}
    for name, scores in scores_of(val, space, alone).items():
        found |= {f"val/{name}/{score}": value for score, value in scores.numbers.items() if score in SHOWN}
    z, present = embed_items(space, store, val.rows, space.modalities)
    directions = evaluate(z, present=present).directions
    found["val/recall@1"] = fmean(
        values["recall@1"]
        for name, values in directions.items()
        if name.endswith(f"->{test.anchor}") and "+" not in name
    )
    return found


@dataclass(frozen=True)
class _FirstResamples:
    whole: Statistic

    def evaluate(self, weights_RN: Tensor) -> Tensor:
        out_R = torch.full((len(weights_RN),), torch.nan, dtype=weights_RN.dtype)
        out_R[:_MAX_RESAMPLES] = self.whole.evaluate(weights_RN[:_MAX_RESAMPLES])
        return out_R


def _decoder(folder: Path, config: Mapping[str, Any], seed: int) -> FlowDecoder:
    decoder = FlowDecoder.from_pretrained(_place(folder, seed) / "decoder")
    wanted = DecoderConfig.from_dict({**config, "seed": seed})
    if decoder.config != wanted:
        raise ConfigError(
            f"the settings of the decoder in {_place(folder, seed)} differ from those of the study; "
            f"delete {folder / DECODERS}"
        )
    return decoder


# Cache the bench across the runs of a worker, since computing features of the true images takes longer than scoring.
@lru_cache(maxsize=4)
def _bench(
    folder: Path, store: str, config: str, seeds: tuple[int, ...], extractor: str, anchor: str, split: str
) -> GenerationBench:
    decoders = [_decoder(folder, json.loads(config), seed) for seed in seeds]
    judge = _EXTRACTORS[extractor]()
    return make_bench(EmbeddingStore.open(store), decoders, anchor=anchor, extractor=judge, split=split)
