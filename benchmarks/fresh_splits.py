"""Repeat the recipe on new splits of emoji and digits, and write the table of the page on the recipe.

    python -m benchmarks.fresh_splits         about 40 minutes on one core; finished splits are kept
    python -m benchmarks.fresh_splits table   writes only the table

Each data set is split again with three seeds. All settings are chosen on the validation rows, and the test rows are
evaluated once per split.
"""

import json
import os
import statistics
import sys
import time
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.pages import RESULTS, ROOT, write_block, write_results
from benchmarks.tune import (
    GRIDS,
    SELECTION_METRICS,
    base,
    best,
    chosen_settings,
    closed_form_space,
    score,
    settings_of,
    trials_on,
)
from unialign.config import CLOSED_FORMS
from unialign.data import EmbeddingStore, load_dataset, random_split
from unialign.io import describe_environment
from unialign.train import fit

RESULT, PAGE = RESULTS / "fresh_splits.json", ROOT / "docs" / "findings" / "recipe.md"
DATA, SPLITS = ("emoji", "digits"), (1, 2, 3)
TUNING_SEEDS, SEEDS = (100,), (0, 1, 2)
# Larger groups, such as families and hands, are always in the training split, as in the split of the data set.
LARGEST_GROUP = 12
LABELS = {"unialign": "UniAlign", "infonce": "InfoNCE", "gram": "GRAM"} | {
    name: form.label for name, form in CLOSED_FORMS.items()
}
BEST = "best trained entry"
PROTOCOL = {
    "rule": "R@1 on the validation split",
    "trials": 8,
    "tuning_seeds": TUNING_SEEDS,
    "seeds": SEEDS,
    "largest_group": LARGEST_GROUP,
}


def new_split(store: EmbeddingStore, seed: int) -> NDArray[np.int8]:
    """Each label has as many validation and test items as in the shipped split."""
    _, first_G, group_N, size_G = np.unique(store.groups, return_index=True, return_inverse=True, return_counts=True)
    label_N = store.labels[first_G][group_N]
    split_N = np.zeros(store.items, np.int8)
    for label in np.unique(label_N):
        own_N = label_N == label
        free_n = np.flatnonzero(own_N & (size_G[group_N] <= LARGEST_GROUP))
        val, test = (float((store.split[own_N] == code).sum() / len(free_n)) for code in (1, 2))
        split_N[free_n] = random_split(
            len(free_n), fractions=(1 - val - test, val, test), groups=store.groups[free_n], seed=seed
        )
    return split_N


def resplit(store: EmbeddingStore, seed: int) -> EmbeddingStore:
    return EmbeddingStore.from_arrays(
        {name: store.array(name) for name in store.modalities},
        present={name: store.present(name) for name in store.modalities},
        ids=store.ids if store.has_ids else None,
        groups=store.groups,
        labels=store.labels,
        label_names=store.label_names,
        split=new_split(store, seed),
        name=store.name,
    )


def measure(name: str, split_seed: int) -> dict[str, Any]:
    began = time.process_time()
    store = resplit(load_dataset(name), split_seed)
    closed = {form: closed_form_space(form, store) for form in CLOSED_FORMS}
    validation = {form: score(space, store, "val")["recall@1"] for form, space in closed.items()}
    start = chosen_settings(closed["kernel_gcca"])
    trials = {objective: trials_on(store, objective, name, start, TUNING_SEEDS) for objective in GRIDS}
    chosen = {objective: best(found, objective) for objective, found in trials.items()}
    validation |= {objective: one["metrics"]["recall@1"] for objective, one in chosen.items()}
    test = {form: [score(space, store, "test")] for form, space in closed.items()}
    for objective, one in chosen.items():
        config = base(objective, name, start).override(settings_of(one))
        spaces = [fit(store, config.replace(seed=seed), progress="none").space for seed in SEEDS]
        test[objective] = [score(space, store, "test") for space in spaces]
    return {
        "data": name,
        "split_seed": split_seed,
        "fingerprint": store.fingerprint,
        "items": {split: len(store.rows(split)) for split in ("train", "val", "test")},
        "closed_forms": {form: chosen_settings(space) for form, space in closed.items()},
        "trials": {
            objective: [{"settings": one["settings"], "recall@1": one["metrics"]["recall@1"]} for one in found]
            for objective, found in trials.items()
        },
        "chosen": {objective: one["settings"] for objective, one in chosen.items()},
        "validation_recall@1": validation,
        "best_trained": max(GRIDS, key=lambda objective: validation[objective]),
        "test": {
            entry: [{metric: run[metric] for metric in SELECTION_METRICS} for run in runs]
            for entry, runs in test.items()
        },
        "cpu_seconds": round(time.process_time() - began),
    }


def means(split: dict[str, Any], entry: str) -> list[float]:
    runs = split["test"][split["best_trained"] if entry == BEST else entry]
    return [100 * statistics.fmean(run[metric] for run in runs) for metric in SELECTION_METRICS]


def table(results: dict[str, Any]) -> str:
    lines = ["| data | entry | R@1, % | joint R@1, % | label mAP, % |", "|---|---|---:|---:|---:|"]
    for name in DATA:
        splits = [split for split in results["splits"] if split["data"] == name]
        for entry in (BEST, *LABELS):
            columns = zip(*(means(split, entry) for split in splits), strict=True)
            cells = " | ".join(f"{statistics.fmean(c):.1f} [{min(c):.1f}, {max(c):.1f}]" for c in columns)
            lines.append(f"| {name} | {LABELS.get(entry, entry)} | {cells} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    torch.set_num_threads(1)
    stored = json.loads(RESULT.read_text("utf-8")) if RESULT.exists() else {"splits": []}
    splits = list(stored["splits"])
    done = {(split["data"], split["split_seed"]) for split in splits}
    wanted = [] if sys.argv[1:] == ["table"] else [(name, seed) for seed in SPLITS for name in DATA]
    for name, seed in wanted:
        if (name, seed) in done:
            continue
        splits.append(measure(name, seed))
        facts = {"schema": 1, "environment": describe_environment(), "protocol": PROTOCOL}
        write_results(RESULT, facts | {"splits": splits})
    write_block(PAGE, RESULT, table({"splits": splits}))


if __name__ == "__main__":
    main()
