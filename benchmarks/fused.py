"""Measure the fused term and Matryoshka on the validation split of emoji, and write the tables of their pages.

python -m benchmarks.fused         trains and writes results/fused.json and both tables
python -m benchmarks.fused table   writes only the tables
"""

import os
import statistics
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

import unialign as ua
from benchmarks.pages import RESULTS, ROOT, measure_and_write, write_results
from unialign.io import describe_environment
from unialign.losses import FusedTarget, create

RESULT, PAGES = RESULTS / "fused.json", ROOT / "docs" / "objectives"
SEEDS, PREFIXES, FULL = 2, (32, 64, 128), 256
METRICS = ("recall@1", "joint_recall@1", "label_map")
# Those of the tuned comparison, which were chosen on the validation split without a fused term.
SETTINGS: dict[str, Any] = {
    "dim": FULL,
    "head": "kernel",
    "init": "gcca",
    "init_regularization": 0.001,
    "init_spectrum_power": 0.0,
    "epochs": 10,
    "weight_decay": 0.0,
}
BASES = {"infonce": {"temperature": 0.1}, "unialign": {"temperature": 0.07, "alignment_weight": 0.7}}


def arms(base: str) -> dict[str, dict[str, Any]]:
    plain = {"objective": base, "objective_options": BASES[base]}
    found = {"alone": plain}
    for weight in (0.5, 1.0):
        found[f"others, weight {weight:g}"] = plain | {"fused_weight": weight}
    if base != "infonce":
        return found
    found["all subsets, weight 0.5"] = plain | {"fused_weight": 0.5, "fused_subsets": "all"}
    aligned = FusedTarget(create(base, **BASES[base]), 0.5, form="alignment")
    found["others, alignment, weight 0.5"] = {"objective": "fused_target", "objective_options": aligned.get_config()}
    found["prefixes"] = plain | {"matryoshka_dims": PREFIXES}
    return found


def measure(store: ua.data.EmbeddingStore, settings: dict[str, Any], seed: int) -> dict[str, dict[str, float]]:
    space = ua.fit(store, ua.TrainConfig(**SETTINGS, **settings, seed=seed), progress="none").space
    rows = store.rows("val")
    features = {name: np.asarray(store.array(name)[rows]) for name in store.modalities}
    present = {name: store.present(name)[rows] for name in store.modalities}
    found = {}
    for dim in (*PREFIXES, FULL):
        embeddings = space.encode(features, present=present, dim=dim)
        evaluation = ua.evaluate(embeddings, present=present, ids=store.ids[rows], labels=store.labels[rows])
        found[str(dim)] = {metric: float(evaluation.metrics[metric]) for metric in METRICS}
    return found


def measure_arms() -> dict[str, Any]:
    torch.set_num_threads(1)
    store = ua.data.load_dataset("emoji")
    facts = {"schema": 1, "data": {"name": "emoji", "fingerprint": store.fingerprint, "split": "val"}}
    facts |= {"settings": SETTINGS, "seeds": SEEDS, "environment": describe_environment()}
    runs: list[dict[str, Any]] = []
    for arm in arms("infonce"):
        for base in (base for base in BASES if arm in arms(base)):
            measured = [measure(store, arms(base)[arm], seed) for seed in range(SEEDS)]
            means = {
                dim: {metric: statistics.fmean(run[dim][metric] for run in measured) for metric in METRICS}
                for dim in measured[0]
            }
            runs.append({"objective": base, "arm": arm, "mean": means, "runs": measured})
            write_results(RESULT, facts | {"arms": runs})
            print(f"{base:10}{arm:32}{_percent(means[str(FULL)])}", flush=True)
    return facts | {"arms": runs}


def fused_table(results: dict[str, Any]) -> str:
    lines = ["| fused term | " + " | ".join(BASES) + " |", "|---|" + "---|" * len(BASES)]
    found = {(run["objective"], run["arm"]): run["mean"][str(FULL)] for run in results["arms"]}
    for arm in arms("infonce"):
        if arm != "prefixes" and any((base, arm) in found for base in BASES):
            cells = " | ".join(_percent(found[base, arm]) if (base, arm) in found else "–" for base in BASES)
            lines.append(f"| {'none' if arm == 'alone' else arm} | {cells} |")
    return "\n".join(lines) + "\n"


def prefix_table(results: dict[str, Any]) -> str:
    dims = [*map(str, PREFIXES), str(FULL)]
    lines = ["| objective | " + " | ".join(dims) + " |", "|---|" + "---|" * len(dims)]
    for run in results["arms"]:
        if run["arm"] in ("alone", "prefixes"):
            name = run["objective"] if run["arm"] == "alone" else f"Matryoshka of {run['objective']}"
            lines.append(
                f"| {name} | " + " | ".join(f"{100 * run['mean'][dim]['recall@1']:.1f}" for dim in dims) + " |"
            )
    return "\n".join(lines) + "\n"


def _percent(means: dict[str, float]) -> str:
    return " / ".join(f"{100 * means[metric]:.1f}" for metric in METRICS)


if __name__ == "__main__":
    pages = {PAGES / "fused_target.md": fused_table, PAGES / "matryoshka.md": prefix_table}
    measure_and_write(RESULT, measure_arms, pages)
