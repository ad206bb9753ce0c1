"""Choose the alignment weight of `frozen_anchor` on validation rows, and as many settings of InfoNCE and of GRAM.

    python -m benchmarks.frozen_anchor         about 5 minutes on one core; finished trainings are kept
    python -m benchmarks.frozen_anchor table   writes only the table

Every setting is trained on emoji with the frozen, whitened image anchor. The development splits are the validation
split of the data and splits that are drawn again from its training and validation rows. Images are generated only for
the validation split of the data, since the decoder is trained on its training rows. Test rows are never read.

Requires `unialign[lite,generate]`.
"""

import json
import math
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.fresh_splits import LARGEST_GROUP
from benchmarks.pages import RESULTS, ROOT, write_block, write_results
from research._image_bench import GenerationBench, make_bench, scores_of
from research._settings import base
from unialign.config import TrainConfig
from unialign.data import EmbeddingStore, load_dataset, random_split
from unialign.generation import embed_items, lite2, load_decoder
from unialign.io import describe_environment
from unialign.metrics import retrieval
from unialign.train import fit

__all__ = ["TRIALS", "chosen", "redrawn", "table"]

RESULT, PAGE = RESULTS / "frozen_anchor.json", ROOT / "docs" / "findings" / "generation.md"
ANCHOR, SOURCES = "image", ("drawing", "text", "speech")
EPOCHS = 60
# The seeds of the trainings on the shipped validation split (0), and on each split that is drawn again.
SEEDS: Mapping[int, tuple[int, ...]] = {0: (100, 101), 1: (100,), 2: (100,), 3: (100,), 4: (100,)}
RULE = (
    "the smallest FD of images from text and drawings among the settings whose mean R@1 over the splits is at most one "
    "standard error of the paired difference below the highest"
)
_T, _WARM = "objective_options.temperature", "infonce_warmup_ratio"
# Settings by objective, each with its name in the table.
TRIALS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "unialign": {
        f"UniAlign, alignment weight {w}": {
            "objective_options.preset": "frozen_anchor",
            "objective_options.alignment_weight": float(w),
        }
        for w in (1, 2, 4, 8, 16)
    },
    "infonce": {f"InfoNCE, temperature {t:g}": {_T: t} for t in (0.05, 0.07, 0.1, 0.2, 0.4)},
    "gram": {
        f"GRAM, temperature {t:g}, InfoNCE warmup {w:g}": {_T: t, _WARM: w}
        for t, w in ((0.07, 0.5), (0.05, 0.75), (0.1, 0.75), (0.07, 0.9), (0.1, 0.9))
    },
}
METRICS = {"recall@1": "R@1, %", "recall@10": "R@10, %", "cosine": "cosine of true pairs"}
# Of images that the decoder of the data generates for the rows of its validation split.
IMAGES = {
    "text/fd": "FD, text",
    "drawing/fd": "FD, drawing",
    "speech/fd": "FD, speech",
    "text/image_recall@10": "R@10 of images, text, %",
    "drawing/image_recall@10": "R@10 of images, drawing, %",
}


def redrawn(store: EmbeddingStore, seed: int) -> EmbeddingStore:
    """Draw a validation split of the same size by label from the training and validation rows; there is no test split.

    Groups stay together, and groups of more than `LARGEST_GROUP` items stay in the training split.
    """
    rows_N = np.sort(np.concatenate([store.rows("train"), store.rows("val")]))
    return EmbeddingStore.from_arrays(
        {name: store.array(name)[rows_N] for name in store.modalities},
        present={name: store.present(name)[rows_N] for name in store.modalities},
        groups=store.groups[rows_N],
        labels=store.labels[rows_N],
        label_names=store.label_names,
        split=_drawn_split(store, rows_N, seed),
        name=store.name,
    )


def _drawn_split(store: EmbeddingStore, rows_N: NDArray[np.int64], seed: int) -> NDArray[np.int8]:
    groups_N, old_N = store.groups[rows_N], store.split[rows_N]
    _, first_G, group_N, size_G = np.unique(groups_N, return_index=True, return_inverse=True, return_counts=True)
    label_N = store.labels[rows_N][first_G][group_N]
    split_N = np.zeros(len(rows_N), np.int8)
    for label in np.unique(label_N):
        own_N = label_N == label
        free_n = np.flatnonzero(own_N & (size_G[group_N] <= LARGEST_GROUP))
        val = float((old_N[own_N] == 1).sum() / max(1, len(free_n)))
        if val > 0:
            split_N[free_n] = random_split(
                len(free_n), fractions=(1 - val, val, 0.0), groups=groups_N[free_n], seed=seed
            )
    return split_N


def config_of(objective: str, settings: Mapping[str, Any], seed: int) -> TrainConfig:
    train = base("emoji", objective, (ANCHOR, *SOURCES), epochs=EPOCHS)
    anchor = {"objective_options.anchor": ANCHOR} if "anchor" in train.objective_options else {}
    return train.override({**anchor, "frozen": {ANCHOR: "whiten"}, **settings, "seed": seed})


def measure(store: EmbeddingStore, config: TrainConfig, bench: GenerationBench | None) -> dict[str, float]:
    """R@1, R@10 and the cosine to the anchor on the validation rows by source and their means, and scores of images."""
    space = fit(store, config, progress="none").space
    z, present = embed_items(space, store, store.rows("val"), space.modalities)
    found: dict[str, float] = {}
    for name in SOURCES:
        both_N = present[name] & present[ANCHOR]
        query_ND, gallery_ND = z[name][both_N], z[ANCHOR][both_N]
        recall = retrieval(query_ND, gallery_ND, k=(1, 10)).recall
        values = {
            "recall@1": recall[1],
            "recall@10": recall[10],
            "cosine": float((query_ND * gallery_ND).sum(1).mean()),
        }
        found |= {f"{name}/{metric}": round(value, 6) for metric, value in values.items()}
    means = {metric: statistics.fmean(found[f"{name}/{metric}"] for name in SOURCES) for metric in METRICS}
    if bench is not None:
        for name, scores in scores_of(bench, space, {name: (name,) for name in SOURCES}).items():
            found[f"{name}/fd"] = round(scores.numbers["fd"], 4)
            found[f"{name}/image_recall@10"] = round(scores.numbers["recall@10"], 6)
    return {metric: round(value, 6) for metric, value in means.items()} | found


def by_run(runs: Sequence[Mapping[str, Any]], trial: str, metric: str) -> dict[tuple[int, int], float]:
    return {(run["split"], run["seed"]): run["metrics"][metric] for run in runs if run["trial"] == trial}


def difference(first: Mapping[Any, float], other: Mapping[Any, float]) -> tuple[float, float]:
    """Mean and standard error of the paired differences over splits, each of which is a mean over its seeds."""
    splits = sorted({split for split, _ in first})
    found = [
        statistics.fmean(value - other[run] for run, value in first.items() if run[0] == split) for split in splits
    ]
    return statistics.fmean(found), statistics.stdev(found) / math.sqrt(len(found))


def mean_over_splits(values: Mapping[tuple[int, int], float]) -> float:
    splits = sorted({split for split, _ in values})
    return statistics.fmean(statistics.fmean(v for run, v in values.items() if run[0] == s) for s in splits)


def chosen(runs: Sequence[Mapping[str, Any]], objective: str) -> str:
    """Apply `RULE`."""
    recalls = {trial: by_run(runs, trial, "recall@1") for trial in TRIALS[objective]}
    best = max(recalls, key=lambda trial: mean_over_splits(recalls[trial]))

    def is_close(trial: str) -> bool:
        loss, error = difference(recalls[best], recalls[trial])
        return loss <= error

    near = [trial for trial in recalls if trial == best or is_close(trial)]
    return min(near, key=lambda trial: image_score(runs, trial, "text/fd") + image_score(runs, trial, "drawing/fd"))


def image_score(runs: Sequence[Mapping[str, Any]], trial: str, metric: str) -> float:
    """Mean over seeds on the validation split of the data."""
    return statistics.fmean(r["metrics"][metric] for r in runs if r["trial"] == trial and r["split"] == 0)


def table(results: Mapping[str, Any]) -> str:
    runs = results["runs"]
    heads = [*METRICS.values(), *IMAGES.values()]
    lines = [f"| setting | {' | '.join(heads)} |", "|---|" + "---:|" * len(heads)]
    for objective, trials in TRIALS.items():
        best = chosen(runs, objective)
        for trial in trials:
            cells = []
            for metric in METRICS:
                own = by_run(runs, trial, metric)
                change, error = difference(own, by_run(runs, best, metric))
                scale, decimals = (1, 3) if metric == "cosine" else (100, 1)
                cell = f"{scale * mean_over_splits(own):.{decimals}f}"
                if trial != best:
                    sign = "−" if round(scale * change, decimals) < 0 else "+"
                    cell += f" ({sign}{scale * abs(change):.{decimals}f} ± {scale * error:.{decimals}f})"
                cells.append(f"**{cell}**" if trial == best else cell)
            for metric in IMAGES:
                scale = 100 if "recall" in metric else 1
                cell = f"{scale * image_score(runs, trial, metric):.1f}"
                cells.append(f"**{cell}**" if trial == best else cell)
            lines.append(f"| {f'**{trial}**' if trial == best else trial} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    torch.set_num_threads(1)
    runs = json.loads(RESULT.read_text("utf-8"))["runs"] if RESULT.exists() else []
    done = {(run["trial"], run["split"], run["seed"]) for run in runs}
    shipped = load_dataset("emoji").select((ANCHOR, *SOURCES))
    stores = {split: redrawn(shipped, split) if split else shipped for split in SEEDS}
    bench = make_bench(shipped, [load_decoder("emoji")], anchor=ANCHOR, extractor=lite2(), split="val")
    wanted = [] if sys.argv[1:] == ["table"] else [(split, seed) for split, seeds in SEEDS.items() for seed in seeds]
    for split, seed in sorted(wanted, key=lambda one: one[1]):
        for objective, trials in TRIALS.items():
            for trial, settings in trials.items():
                if (trial, split, seed) in done:
                    continue
                began = time.process_time()
                metrics = measure(stores[split], config_of(objective, settings, seed), None if split else bench)
                seconds = round(time.process_time() - began, 1)
                runs.append({"trial": trial, "split": split, "seed": seed, "metrics": metrics, "cpu_seconds": seconds})
                write_results(RESULT, _results(shipped, runs))
    if len(runs) == sum(map(len, TRIALS.values())) * sum(map(len, SEEDS.values())):
        write_block(PAGE, RESULT, table({"runs": runs}))


def _results(store: EmbeddingStore, runs: list[dict[str, Any]]) -> dict[str, Any]:
    complete = len(runs) == sum(map(len, TRIALS.values())) * sum(map(len, SEEDS.values()))
    return {
        "schema": 1,
        "environment": describe_environment(),
        "data": {"name": store.name, "fingerprint": store.fingerprint, "splits": sorted(SEEDS)},
        "rule": RULE,
        "settings": {objective: dict(trials) for objective, trials in TRIALS.items()},
        "chosen": {objective: chosen(runs, objective) for objective in TRIALS} if complete else {},
        "runs": runs,
    }


if __name__ == "__main__":
    main()
