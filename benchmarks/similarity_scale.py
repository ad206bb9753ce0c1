"""Train with several values of `similarity_scale`, and compare the best one with the counts of `unialign diagnose`.

    python -m benchmarks.similarity_scale         about 15 minutes on one core; finished runs are kept
    python -m benchmarks.similarity_scale table   writes only the table

The training and validation rows of emoji and digits are split again by group, three quarters for training. Test rows
are not used. All settings but the scale are fixed.
"""

import itertools
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

import unialign as ua
from benchmarks.pages import RESULTS, ROOT, write_block, write_results
from benchmarks.tune import SELECTION_METRICS, score
from unialign.config import TrainConfig
from unialign.data import EmbeddingStore, load_dataset, random_split
from unialign.io import describe_environment
from unialign.space import Space
from unialign.train import fit

RESULT, PAGE = RESULTS / "similarity_scale.json", ROOT / "docs" / "concepts" / "missing.md"
SPLITS = {"emoji": (0, 1), "digits": (0, 1)}
SCALES = (0.0, 2.5, 5.0, 10.0, 20.0)
# Scales for each modality, at which its close negatives keep a half and a twentieth of their weight.
RULES = {"half": "low", "twentieth": "high"}
# Ridge and power of the eigenvalues of the closed form.
CLOSED_FORM = {"emoji": (0.001, 0.0), "digits": (1e-4, 1.0)}
HEADS = ("kernel", "linear")
# Dropout of linear heads. With a half, all six features of a view of the digits may be dropped.
DROPOUT = {"emoji": 0.5, "digits": 0.0}
OBJECTIVES: dict[str, tuple[str, Mapping[str, Any]]] = {
    "UniAlign": ("unialign", {"preset": "small_batch", "alignment_weight": 0.8}),
    "InfoNCE": ("infonce", {"temperature": 0.07}),
}


def dev_store(name: str, seed: int) -> EmbeddingStore:
    """The training and validation rows, split again into training and validation rows."""
    store = load_dataset(name)
    rows = np.sort(np.concatenate([store.rows("train"), store.rows("val")]))
    split = random_split(len(rows), fractions=(0.75, 0.25, 0.0), groups=store.groups[rows], seed=seed)
    return EmbeddingStore.from_arrays(
        {m: store.array(m)[rows] for m in store.modalities},
        present={m: store.present(m)[rows] for m in store.modalities},
        ids=store.ids[rows] if store.has_ids else None,
        groups=store.groups[rows],
        labels=store.labels[rows],
        label_names=store.label_names,
        split=split,
        name=f"{name}, split {seed}",
    )


def start_of(store: EmbeddingStore, name: str) -> Space:
    ridge, power = CLOSED_FORM[name]
    config = TrainConfig(
        head="kernel", dim=256, init="gcca", init_regularization=ridge, init_spectrum_power=power, epochs=0
    )
    return fit(store, config, progress="none").space


def config_of(name: str, head: str, objective: str, scale: Any, seed: int) -> TrainConfig:
    kind, options = OBJECTIVES[objective]
    shared = {"objective": kind, "objective_options": {**options, "similarity_scale": scale}, "seed": seed}
    if head == "kernel":
        return TrainConfig(head="kernel", dim=256, epochs=10, lr=1e-3, weight_decay=0.0, **shared)
    return TrainConfig(head="linear", dim=64, epochs=20, lr=6e-3, weight_decay=0.05, dropout=DROPOUT[name], **shared)


def negatives_of(store: EmbeddingStore) -> dict[str, Any]:
    """The numbers of a diagnosis of the training rows."""
    rows = store.rows("train")
    z = {m: store.array(m)[rows] for m in store.modalities}
    present = {m: store.present(m)[rows] for m in store.modalities}
    report = ua.diagnose(z, present=present, labels=store.labels[rows], resamples=100)
    return {m: numbers["negatives"] for m, numbers in report.numbers["modalities"].items()}


def jobs() -> Iterator[tuple[str, int, str, str, float | str]]:
    for split, (name, splits) in itertools.product(range(max(map(len, SPLITS.values()))), SPLITS.items()):
        if split < len(splits):
            for head, objective, scale in itertools.product(HEADS, OBJECTIVES, (*SCALES, *RULES)):
                yield name, splits[split], head, objective, scale


def measure() -> None:
    torch.set_num_threads(1)
    stored = json.loads(RESULT.read_text("utf-8")) if RESULT.exists() else {"runs": [], "negatives": {}}
    done = {(run["data"], run["split"], run["head"], run["objective"], run["scale"]) for run in stored["runs"]}
    stores: dict[tuple[str, int], EmbeddingStore] = {}
    starts: dict[tuple[str, int], Space] = {}
    for job in jobs():
        if job in done:
            continue
        name, split, head, objective, scale = job
        began = time.process_time()
        if (name, split) not in stores:
            stores[name, split] = dev_store(name, split)
        store = stores[name, split]
        key = f"{name}, split {split}"
        if key not in stored["negatives"]:
            stored["negatives"][key] = negatives_of(store)
        if head == "kernel" and (name, split) not in starts:
            starts[name, split] = start_of(store, name)
            stored.setdefault("starts", {})[key] = metrics_of(starts[name, split], store)
        value: Any = scale
        if isinstance(scale, str):
            value = {m: n["scale_range"][RULES[scale]] for m, n in stored["negatives"][key].items()}
        config = config_of(name, head, objective, value, split)
        init = starts[name, split] if head == "kernel" else None
        space = fit(store, config, init_from=init, progress="none").space
        run = {"data": name, "split": split, "head": head, "objective": objective, "scale": scale}
        stored["runs"].append(run | metrics_of(space, store))
        print(job, stored["runs"][-1], round(time.process_time() - began, 1), flush=True)
        stored["environment"] = describe_environment()
        write_results(RESULT, stored)


def metrics_of(space: Space, store: EmbeddingStore) -> dict[str, float]:
    found = score(space, store, "val")
    return {metric: found[metric] for metric in SELECTION_METRICS}


def mean_score(run: Mapping[str, float]) -> float:
    """Mean logarithm of the three metrics, in percent."""
    return 100 * statistics.mean(math.log(run[metric]) for metric in SELECTION_METRICS)


def table(stored: Mapping[str, Any]) -> str:
    """Means over the splits; the best scale by the mean logarithm of the three metrics is in bold."""
    scales = (*SCALES, *RULES)
    heads = [f"$s = {scale:g}$" for scale in SCALES] + [f"{rule}, per modality" for rule in RULES]
    lines = [f"| data, heads | objective | range | {' | '.join(heads)} |", "|---" * 3 + "|---:" * len(heads) + "|"]
    for name, head, objective in itertools.product(SPLITS, HEADS, OBJECTIVES):
        runs = [
            run for run in stored["runs"] if (run["data"], run["head"], run["objective"]) == (name, head, objective)
        ]
        means = {
            scale: {
                metric: statistics.mean(run[metric] for run in runs if run["scale"] == scale)
                for metric in SELECTION_METRICS
            }
            for scale in scales
        }
        best = max(scales, key=lambda scale: mean_score(means[scale]))
        cells = [" / ".join(f"{100 * means[scale][metric]:.1f}" for metric in SELECTION_METRICS) for scale in scales]
        cells = [f"**{cell}**" if scale == best else cell for scale, cell in zip(scales, cells, strict=True)]
        low, high = scale_range(stored, name)
        lines.append(f"| {name}, {head} | {objective} | {low:.1f} to {high:.1f} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def scale_range(stored: Mapping[str, Any], name: str) -> tuple[float, float]:
    """The range of the finding, averaged over the splits."""
    ranges = [
        [n["scale_range"] for n in negatives.values() if n["close"]["mean"] >= 1]
        for key, negatives in stored["negatives"].items()
        if key.startswith(f"{name},")
    ]
    low, high = (
        [choose(r[bound] for r in found) for found in ranges] for choose, bound in ((min, "low"), (max, "high"))
    )
    return statistics.mean(low), statistics.mean(high)


if __name__ == "__main__":
    if sys.argv[1:] != ["table"]:
        measure()
    write_block(PAGE, RESULT, table(json.loads(RESULT.read_text("utf-8"))))
