"""List the cases in run order, and decide which to skip."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.speed.implementations import IMPLEMENTATIONS

__all__ = ["Case", "Limits", "cases", "growth", "out_of_reach"]

SIZES = (256, 1024, 4096, 16384, 32768, 65536)
OURS_ONLY = 32768  # common batch size at which only our losses are measured
OBJECTIVE_SIZES, OBJECTIVE_MODALITIES = (256, 1024, 4096, 16384), (2, 3, 4, 6)
DIM, OBJECTIVE_DIM = 512, 256
ONLY_MODALITIES = {"triangle": 3}  # the formula is defined for three modalities


@dataclass(frozen=True)
class Limits:
    """Our losses may run longer, since no baseline reaches the largest size."""

    gigabytes: float = 16.0
    seconds: float = 150.0
    our_seconds: float = 600.0
    objective_seconds: float = 40.0


@dataclass(frozen=True)
class Case:
    group: str
    name: str
    modalities: int
    items: int
    dim: int

    @property
    def key(self) -> str:
        return f"{self.series}/{self.items}"

    @property
    def series(self) -> str:
        return f"{self.group}/{self.name}/{self.modalities}"


def cases(
    *,
    names: Sequence[str],
    only: Sequence[str] | None,
    sizes: Sequence[int] | None,
    modalities: Sequence[int] | None,
) -> list[Case]:
    """Small sizes come first, for extrapolation."""

    def wanted(group: str) -> bool:
        return only is None or any(group.startswith(word) for word in only)

    found = [
        Case(c.loss, c.name, c.modalities, items, DIM)
        for c in IMPLEMENTATIONS
        for items in SIZES
        if wanted(c.loss) and items <= c.largest and (c.ours or items != OURS_ONLY)
    ]
    found += [
        Case("objectives", name, m, items, OBJECTIVE_DIM)
        for name in names
        for m in OBJECTIVE_MODALITIES
        for items in OBJECTIVE_SIZES
        if wanted("objectives") and ONLY_MODALITIES.get(name, m) == m
    ]
    found = [c for c in found if sizes is None or c.items in sizes]
    return [c for c in found if modalities is None or c.group != "objectives" or c.modalities in modalities]


def out_of_reach(case: Case, known: Mapping[str, Any], limits: Limits, *, seconds: float) -> dict[str, Any] | None:
    below = [known[c] for c in (f"{case.series}/{size}" for size in SIZES if size < case.items) if c in known]
    if not below:
        return None
    last = below[-1]
    if last["status"] in ("time", "memory"):
        tried = last.get("tried", True)
        reason = f"{last['reason']} at B = {last['items']:,}" if tried else last["reason"]
        return {"status": last["status"], "reason": reason, "tried": False}
    if last["status"] != "measured":
        return None
    times = (case.items / last["items"]) ** 2
    needed = last["cpu_seconds"]["best"] * times
    if last["items"] >= 1024 and needed > 1.2 * seconds:
        return {"status": "time", "reason": f"about {needed:.0f} s by extrapolation", "tried": False}
    # Memory that grows with B only (inputs, gradients) is not extrapolated with B^2.
    square = max(0, last["memory"]["peak"] - 4 * last["memory"]["inputs"])
    size = square * times + 4 * last["memory"]["inputs"] * case.items / last["items"]
    counted = [row for row in below if row.get("bytes_kept") is not None]  # not counted at the largest sizes
    keeps_squares = bool(counted) and counted[-1]["bytes_kept"] > 4 * counted[-1]["items"] ** 2
    if last["items"] >= 4096 and keeps_squares and size > limits.gigabytes * 10**9:
        return {"status": "memory", "reason": f"about {size / 10**9:.0f} GB by extrapolation", "tried": False}
    return None


def growth(points: Sequence[tuple[float, float]]) -> float | None:
    """Slope of a least-squares line through the logarithms; None for fewer than two points."""
    usable = [(math.log(x), math.log(y)) for x, y in points if x > 0 and y > 0]
    if len({x for x, _ in usable}) < 2:
        return None
    mean_x, mean_y = (sum(column) / len(usable) for column in zip(*usable, strict=True))
    spread = sum((x - mean_x) ** 2 for x, _ in usable)
    return sum((x - mean_x) * (y - mean_y) for x, y in usable) / spread
