"""Choose the settings of the demo on the validation split, and write the recipe that `unialign demo` runs.

    python -m benchmarks.tune emoji            about 10 minutes on 2 cores
    python -m benchmarks.tune digits
    python -m benchmarks.tune emoji --only unialign_preset    keep the other trials of the log

The closed forms choose their settings first. All objectives then start at kernel GCCA and get the same number of trials
and seeds; the settings with the highest mean R@1 are chosen. The test split is never read.
"""

import argparse
import itertools
import json
import math
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from unialign.closed_form import gcca, ridge
from unialign.config import CLOSED_FORMS, CompareConfig, ComparisonEntry, TrainConfig, closed_form_config
from unialign.data import EmbeddingStore, load_dataset
from unialign.experiments import embed_split, evaluate_split, make_entry
from unialign.io import describe_environment, write_yaml
from unialign.space import Space
from unialign.train import fit

SEEDS = (100, 101)  # not those of the demo
TEMPERATURES = (0.03, 0.04, 0.05, 0.07, 0.1, 0.13, 0.16, 0.2)
GRIDS: dict[str, dict[str, tuple[Any, ...]]] = {
    "unialign": {
        "objective_options.temperature": (0.05, 0.07, 0.1, 0.15),
        "objective_options.alignment_weight": (0.7, 1.0),
    },
    # The presets of UniAlign with negatives of other modalities.
    "unialign_preset": {
        "objective_options.preset": ("small_batch", "joint_queries", "classes", "retrieval"),
        "objective_options.temperature": (0.07, 0.1),
    },
    "infonce": {"objective_options.temperature": TEMPERATURES},
    "gram": {"objective_options.temperature": (0.05, 0.1, 0.2, 0.4), "infonce_warmup_ratio": (0.0, 0.5)},
}
# GRAM needs a modality as anchor.
GRAM_ANCHORS = {"emoji": "text", "digits": "pix"}
# Fixed beforehand for all objectives; the page on the recipe describes the reasons.
COMMON: dict[str, Any] = {
    "head": "kernel",
    "init": "gcca",
    "epochs": 10,
    "batch_size": 256,
    "dim": 256,
    "lr": 1e-3,
    "weight_decay": 0.0,
}
SELECTION_METRICS = ("recall@1", "joint_recall@1", "label_map")

Record = dict[str, Any]


def base(objective: str, data: str, start: dict[str, Any]) -> TrainConfig:
    """`start` has the settings of kernel GCCA."""
    objective = "unialign" if objective == "unialign_preset" else objective
    anchor = GRAM_ANCHORS[data] if objective == "gram" else "all"
    return TrainConfig(objective=objective, objective_options={"anchor": anchor}, **COMMON, **start)


def record(
    store: EmbeddingStore, name: str, settings: dict[str, Any], metrics: list[dict[str, float]]
) -> dict[str, Any]:
    means = {key: float(torch.tensor([m[key] for m in metrics]).mean()) for key in metrics[0]}
    score = sum(math.log(means[name]) for name in SELECTION_METRICS) / len(SELECTION_METRICS)
    print(name, settings, [round(100 * means[name], 1) for name in SELECTION_METRICS], f"{score:.4f}", flush=True)
    return {
        "objective": name,
        "settings": settings,
        "score": score,
        "per_seed": [m["recall@1"] for m in metrics],
        "metrics": means,
        "fingerprint": store.fingerprint,
        "environment": describe_environment(),
    }


def closed_form_of(name: str, data: str) -> Record:
    store = load_dataset(data)
    space = closed_form_space(name, store)
    return record(store, name, chosen_settings(space), [score(space, store, "val")])


def closed_form_space(name: str, store: EmbeddingStore) -> Space:
    config = closed_form_config(name)
    if config.init == "ridge":
        return ridge(store, dim=config.dim)
    return gcca(store, kernel="rbf" if config.head == "kernel" else "linear", dim=config.dim)


def chosen_settings(space: Space) -> dict[str, Any]:
    facts: Any = space.metadata["closed_form"]
    return {f"init_{key}": facts[key] for key in ("regularization", "spectrum_power") if key in facts}


def score(space: Space, store: EmbeddingStore, split: str) -> dict[str, float]:
    return dict(evaluate_split(embed_split(space, store, split), store, split).metrics)


def trials_of(objective: str, data: str, start: dict[str, Any]) -> list[Record]:
    return trials_on(load_dataset(data), objective, data, start, SEEDS)


def trials_on(
    store: EmbeddingStore, objective: str, data: str, start: dict[str, Any], seeds: tuple[int, ...]
) -> list[Record]:
    grid, found = GRIDS[objective], []
    for values in itertools.product(*grid.values()):
        settings = dict(zip(grid, values, strict=True))
        config = base(objective, data, start).override(settings)
        spaces = (fit(store, config.replace(seed=seed), progress="none").space for seed in seeds)
        found.append(record(store, objective, settings, [score(space, store, "val") for space in spaces]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=sorted(GRAM_ANCHORS))
    parser.add_argument("--only", nargs="+", choices=sorted(GRIDS), metavar="NAME", help="objectives to tune again")
    options = parser.parse_args()
    data, chosen = options.data, options.only or list(GRIDS)
    root = Path(__file__).resolve().parent
    log = root / "tuning" / f"{data}.jsonl"
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        if options.only:
            lines = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
            records = [one for one in lines if one["objective"] not in chosen]
        else:
            records = list(pool.map(closed_form_of, CLOSED_FORMS, [data] * len(CLOSED_FORMS)))
        start = settings_of(best(records, "kernel_gcca"))
        for found in pool.map(trials_of, chosen, [data] * len(chosen), [start] * len(chosen)):
            records += found
    log.write_text("".join(json.dumps(one) + "\n" for one in records), "utf-8")
    write_recipe(data, records, root.parent / "unialign-datasets" / "unialign_datasets" / "recipes")


def best(records: list[Record], name: str) -> Record:
    return max((one for one in records if one["objective"] == name), key=lambda one: one["metrics"]["recall@1"])


def settings_of(one: Record) -> dict[str, Any]:
    found: dict[str, Any] = one["settings"]
    return found


def write_recipe(data: str, records: list[Record], folder: Path) -> None:
    start = settings_of(best(records, "kernel_gcca"))
    entries: dict[str, ComparisonEntry] = {
        name: make_entry(base(name, data, start).override(settings_of(best(records, name)))) for name in GRIDS
    }
    preset = entries["unialign_preset"]
    label = f"{preset.label} {preset.train.objective_options['preset']}"
    entries["unialign_preset"] = preset.replace(label=label)
    entries |= {name: make_entry(closed_form_config(name, settings_of(best(records, name)))) for name in CLOSED_FORMS}
    trials = len(list(itertools.product(*GRIDS["infonce"].values())))
    config = CompareConfig(
        data=data,
        entries=entries,
        fingerprint=load_dataset(data).fingerprint,
        selection="temperature, UniAlign's alignment weight or preset and GRAM's InfoNCE warmup chosen by mean R@1 "
        f"on the validation split, {trials} trials of {len(SEEDS)} seeds for each objective; regularization and "
        "spectrum power of the closed forms by the mean logarithm of R@1, joint R@1 and label mAP on the validation "
        "split",
    )
    write_yaml(folder / f"{data}.yaml", config.to_dict())


if __name__ == "__main__":
    main()
