"""Measure the time and memory of the options of the UniAlign family against InfoNCE, and write the table of its page.

    python -m benchmarks.weighted          measures and writes results/weighted.json and the table
    python -m benchmarks.weighted table    writes only the table

Each number is the fastest of several forward and backward passes on one thread, divided by that of InfoNCE over all
pairs without weights in the same process. The bytes are those that autograd keeps for the backward pass.
"""

import os
import time
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor

from benchmarks.pages import RESULTS, ROOT, measure_and_write
from benchmarks.saved_bytes import saved_bytes
from unialign.io import describe_environment
from unialign.losses import Objective, create

RESULT, PAGE = RESULTS / "weighted.json", ROOT / "docs" / "objectives" / "unialign.md"
DIM = WIDTH = 128
SIZES = {2: (256, 1024, 4096, 16384), 4: (256, 1024, 4096)}
BASELINE = "InfoNCE"
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    BASELINE: ("infonce", {}),
    "InfoNCE, `similarity_scale` 5": ("infonce", {"similarity_scale": 5.0}),
    "Sigmoid, `similarity_scale` 5": ("sigmoid", {"similarity_scale": 5.0}),
    "`balanced`": ("unialign", {"preset": "balanced"}),
    "`small_batch`": ("unialign", {"preset": "small_batch"}),
    "`joint_queries`": ("unialign", {"preset": "joint_queries"}),
    "`retrieval`": ("unialign", {"preset": "retrieval"}),
}


def draw(modalities: int, items: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    z = {f"m{m}": torch.randn(items, DIM, generator=generator).requires_grad_() for m in range(modalities)}
    return z, {name: torch.randn(items, WIDTH, generator=generator) for name in z}


def seconds(objective: Objective, modalities: int, items: int) -> float:
    z, features = draw(modalities, items)
    call = {"similarity": features} if objective.needs_similarity() else {}
    times = []
    for _ in range(12 if items <= 1024 else 4 if items <= 4096 else 2):
        began = time.process_time()
        objective(z, **call).total.backward()
        times.append(time.process_time() - began)
    return min(times)


def kept(objective: Objective, modalities: int, items: int) -> int:
    z, features = draw(modalities, items)
    call = {"similarity": features} if objective.needs_similarity() else {}
    return saved_bytes(lambda: objective(z, **call).total)


def measure() -> dict[str, Any]:
    torch.set_num_threads(1)
    rows = []
    for modalities, sizes in SIZES.items():
        for items in sizes:
            objectives = {name: create(key, **options) for name, (key, options) in CASES.items()}
            found = {
                name: (seconds(objective, modalities, items), kept(objective, modalities, items))
                for name, objective in objectives.items()
            }
            baseline = found[BASELINE][0]
            rows.append(
                {
                    "modalities": modalities,
                    "items": items,
                    "baseline_ms": 1000 * baseline,
                    "time_ratio": {name: taken / baseline for name, (taken, _) in found.items()},
                    "saved_bytes": {name: size for name, (_, size) in found.items()},
                }
            )
            print(rows[-1], flush=True)
    return {"dim": DIM, "width": WIDTH, "rows": rows, "environment": describe_environment()}


def table(results: dict[str, Any]) -> str:
    rows = results["rows"]
    heads = [f"M = {row['modalities']}, B = {row['items']:,}" for row in rows]
    lines = ["", f"| time / InfoNCE, all pairs | {' | '.join(heads)} |", f"|---|{'---:|' * len(rows)}"]
    for name in CASES:
        if name != BASELINE:
            ratios = [f"{row['time_ratio'][name]:.2f}" for row in rows]
            lines.append(f"| {name} | {' | '.join(ratios)} |")
    largest = max((row for row in rows if row["modalities"] == 2), key=lambda row: row["items"])
    features = 2 * 4 * largest["items"] * results["width"] / 2**20  # two modalities of float32
    shown = (BASELINE, "`joint_queries`", "`retrieval`")
    sizes = ", ".join(f"{name} {largest['saved_bytes'][name] / 2**20:.0f} MiB" for name in shown)
    note = (
        f"Forward and backward pass on one thread, D = {results['dim']}, features of width {results['width']}. Kept "
        f"for the backward pass at B = {largest['items']:,} and M = 2: {sizes}; and {features:.0f} MiB of features "
        "with a `similarity_scale`."
    )
    return "\n".join([*lines, "", note, "", ""])


if __name__ == "__main__":
    measure_and_write(RESULT, measure, {PAGE: table})
