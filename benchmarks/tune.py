"""Choose the settings of the demo on the validation split and write the recipe that `unialign demo` runs.

    python -m benchmarks.tune emoji            about 10 minutes on 2 cores

Every objective gets the same number of trials, training steps (InfoNCE warmup included) and seeds; its best mean R@1 on
the validation split wins. The test split is never read. All trials are kept in `tuning/<data>.jsonl`, in the order
tried.
"""

import argparse
import hashlib
import itertools
import json
import multiprocessing
import os
import random
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from unialign.config import CompareConfig, TrainConfig
from unialign.data import load_dataset
from unialign.experiments import embed_split, evaluate_split, make_entry
from unialign.io import describe_environment, write_yaml
from unialign.train import fit

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
    # GRAM continues a contrastively trained model, so its second tuned parameter is the fraction of warm-up.
    "gram": {"objective_options.temperature": TEMPERATURES, "lr": RATES, "infonce_warmup_ratio": (0.5, 0.75, 0.9)},
}
ANCHORS = {"emoji": "text", "digits": "pix"}
# Fixed beforehand for all objectives: among 8 settings of head, dropout and decay, tried with InfoNCE and UniAlign on
# the validation split, linear heads with strong input dropout were as good as larger ones, and faster.
COMMON: dict[str, Any] = {
    "head": "linear",
    "dropout": 0.5,
    "epochs": 100,
    "batch_size": 256,
    "dim": 128,
    "weight_decay": 0.05,
}


def base(objective: str, anchor: str) -> TrainConfig:
    return TrainConfig(objective=objective, objective_options={"anchor": anchor}, **COMMON)


def trials_of(objective: str, data: str) -> list[dict[str, Any]]:
    """Score settings sampled from the objective's grid by R@1 on the validation split, averaged over the seeds."""
    store, grid = load_dataset(data), GRIDS[objective]
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    draw = random.Random(int.from_bytes(hashlib.sha256(objective.encode()).digest()[:8], "big"))
    found = []
    for settings in draw.sample(points, TRIALS):
        config = base(objective, ANCHORS[data]).override(settings)
        metrics: list[dict[str, float]] = []
        for seed in SEEDS:
            space = fit(store, config.replace(seed=seed), progress="none").space
            metrics.append(evaluate_split(embed_split(space, store, "val"), store, "val").metrics)
        means = {key: float(torch.tensor([m[key] for m in metrics]).mean()) for key in metrics[0]}
        print(objective, settings, f"{100 * means['recall@1']:.2f}", flush=True)
        found.append(
            {
                "objective": objective,
                "settings": settings,
                "recall@1": means["recall@1"],
                "per_seed": [m["recall@1"] for m in metrics],
                "metrics": means,
                "fingerprint": store.fingerprint,
                "environment": describe_environment(),
            }
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=sorted(ANCHORS))
    parser.add_argument(
        "--objectives", nargs="+", choices=sorted(GRIDS), default=list(GRIDS), help="other logs are kept"
    )
    options = parser.parse_args()
    root = Path(__file__).resolve().parent
    log = root / "tuning" / f"{options.data}.jsonl"
    kept = [json.loads(line) for line in log.read_text("utf-8").splitlines()] if log.exists() else []
    records = [record for record in kept if record["objective"] not in options.objectives]
    with ProcessPoolExecutor(len(options.objectives), mp_context=multiprocessing.get_context("spawn")) as pool:
        for found in pool.map(trials_of, options.objectives, [options.data] * len(options.objectives)):
            records += found
    records.sort(key=lambda record: list(GRIDS).index(record["objective"]))
    log.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    write_recipe(options.data, records, root.parent / "unialign-datasets" / "unialign_datasets" / "recipes")


def write_recipe(data: str, records: list[dict[str, Any]], folder: Path) -> None:
    entries = {}
    for objective in GRIDS:
        best = max((r for r in records if r["objective"] == objective), key=lambda record: record["recall@1"])
        entries[objective] = make_entry(base(objective, ANCHORS[data]).override(best["settings"]))
    config = CompareConfig(
        data=data,
        entries=entries,
        fingerprint=load_dataset(data).fingerprint,
        selection="temperature, learning rate, UniAlign's alignment weight and GRAM's InfoNCE warmup chosen by mean "
        f"R@1 on the validation split, {TRIALS} trials of {len(SEEDS)} seeds for each objective",
    )
    write_yaml(folder / f"{data}.yaml", config.to_dict())


if __name__ == "__main__":
    main()
