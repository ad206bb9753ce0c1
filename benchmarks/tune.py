"""Choose the settings of the demo on the validation split and write the recipe that `unialign demo` runs.

    python benchmarks/tune.py emoji            about 10 minutes on 2 cores

Every objective gets the same number of trials, training steps (warm start included) and seeds; its best mean R@1 on the
validation split wins. The test split is never read. All trials are kept in `tuning/<data>.jsonl`, in the order tried.
"""

import argparse
import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from unialign.data import load
from unialign.experiments import (
    CompareConfig,
    Entry,
    describe_environment,
    search,
    with_settings,
    write_yaml,
)
from unialign.train import TrainConfig

TRIALS = 20
SEEDS = (100, 101)  # not those of the demo
TEMPERATURES = (0.03, 0.05, 0.07, 0.1, 0.15)
RATES = (5e-4, 1e-3, 2e-3, 4e-3)
GRIDS: dict[str, dict[str, tuple[Any, ...]]] = {
    "unialign": {
        "objective_options.temperature": TEMPERATURES,
        "lr": RATES,
        "objective_options.alignment_weight": (0.5, 0.75, 1.0, 1.25),
    },
    "infonce": {"objective_options.temperature": TEMPERATURES, "lr": RATES},
    "gram": {"objective_options.temperature": TEMPERATURES, "lr": RATES},
}
ANCHORS = {"emoji": "text", "digits": "pix"}
LABELS = {"unialign": "UniAlign", "infonce": "InfoNCE", "gram": "GRAM"}
# Fixed beforehand, the same for all: a look at 8 settings of head, dropout and decay with InfoNCE and UniAlign on the
# validation split showed that linear heads with strong input dropout are as good as larger ones, and faster.
COMMON: dict[str, Any] = {
    "head": "linear",
    "dropout": 0.5,
    "epochs": 100,
    "batch_size": 256,
    "dim": 128,
    "weight_decay": 0.05,
}
WARM_START = 0.5
NOTE = "warm start: first 50 % of the steps with InfoNCE"


def base(objective: str, anchor: str) -> TrainConfig:
    warm = {"warm_start": WARM_START} if objective == "gram" else {}
    return TrainConfig(objective=objective, objective_options={"anchor": anchor}, **COMMON, **warm)


def trials_of(objective: str, data: str) -> list[dict[str, Any]]:
    store = load(data)
    records = search(
        store, base(objective, ANCHORS[data]), GRIDS[objective], trials=TRIALS, seeds=SEEDS, name=objective
    )
    found = []
    for record in records:
        found.append(record | {"fingerprint": store.fingerprint})
        print(objective, record["settings"], f"{100 * record['recall@1']:.2f}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=sorted(ANCHORS))
    parser.add_argument("--workers", type=int, default=len(GRIDS))
    options = parser.parse_args()
    root = Path(__file__).resolve().parent
    with ProcessPoolExecutor(options.workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        logs = dict(zip(GRIDS, pool.map(trials_of, GRIDS, [options.data] * len(GRIDS)), strict=True))
    environment = describe_environment()
    with open(root / "tuning" / f"{options.data}.jsonl", "w", encoding="utf-8") as file:
        for records in logs.values():
            file.writelines(json.dumps(record | {"environment": environment}) + "\n" for record in records)
    entries = {}
    for objective, records in logs.items():
        best = max(records, key=lambda record: record["recall@1"])
        train = with_settings(base(objective, ANCHORS[options.data]), best["settings"])
        entries[objective] = Entry(label=LABELS[objective], train=train, note=NOTE if objective == "gram" else "")
    config = CompareConfig(
        data=options.data,
        entries=entries,
        fingerprint=load(options.data).fingerprint,
        selection="temperature, learning rate and UniAlign's alignment weight chosen by mean R@1 on the validation "
        f"split, {TRIALS} trials of {len(SEEDS)} seeds for each objective",
    )
    recipes = root.parent / "src" / "unialign" / "experiments" / "recipes"
    write_yaml(recipes / f"{options.data}.yaml", config.to_dict())


if __name__ == "__main__":
    main()
