"""Utilities of metrics, Pareto front and hypervolume.

The utility of a metric is its logarithm, negative for metrics where lower is better, so that differences of utilities
are ratios of metrics. `auto` is a mean of logarithms already.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unialign.evaluation import SELECTION_METRICS, all_metrics, check_selection_metric, log_score

# Smallest value of a metric whose logarithm is taken, if it is not a fraction of items.
_LEAST = 1e-6


@dataclass(frozen=True)
class Goal:
    """The metrics to optimize.

    Attributes:
        metrics: one to three names, or `auto`.
        items: number of validation items; fractions of items below 0.5 / items are replaced by this value.
    """

    metrics: tuple[str, ...]
    items: int

    @property
    def measured(self) -> tuple[str, ...]:
        """Names of the metrics that trials measure: those to optimize, and R@1, joint R@1 and label mAP."""
        return tuple(dict.fromkeys((*SELECTION_METRICS, *(name for name in self.metrics if name != "auto"))))

    def with_auto(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Add `auto`."""
        parts = {name: metrics[name] for name in SELECTION_METRICS if name in metrics}
        return {**metrics, **({"auto": log_score(parts, items=self.items)} if parts else {})}

    def sign(self, metric: str) -> float:
        """Return 1 if higher is better, else -1."""
        return 1.0 if check_selection_metric(metric, "metric") == "higher" else -1.0

    def utilities(self, metrics: Mapping[str, float]) -> tuple[float, ...]:
        """Return one number per metric, higher is better; -inf if the metric is missing or NaN."""
        return tuple(self._utility(name, metrics.get(name, math.nan)) for name in self.metrics)

    def score(self, metrics: Mapping[str, float]) -> float:
        """Return the mean of the utilities, by which settings are chosen."""
        return sum(self.utilities(metrics)) / len(self.metrics)

    def _utility(self, name: str, value: float) -> float:
        if not math.isfinite(value):
            return -math.inf
        if name == "auto":
            return value
        metric = all_metrics()[name]
        least = 0.5 / self.items if metric.unit == "percent" else _LEAST
        return self.sign(name) * math.log(max(value, least))


def dominates(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether the first is at least as good in all utilities, and better in one."""
    return all(a >= b for a, b in zip(first, second, strict=True)) and any(
        a > b for a, b in zip(first, second, strict=True)
    )


def pareto_front(utilities: Mapping[Any, Sequence[float]]) -> list[Any]:
    """Return the keys that no other key dominates, in order; of equal ones, the first."""
    front: list[Any] = []
    for key, own in utilities.items():
        if not all(map(math.isfinite, own)) or any(dominates(other, own) for other in utilities.values()):
            continue
        if all(tuple(utilities[other]) != tuple(own) for other in front):
            front.append(key)
    return front


def hypervolume(points: Sequence[Sequence[float]], reference: Sequence[float]) -> float:
    """Return the volume that points (higher is better) dominate above a reference point.

    The points are cut into slabs along the last coordinate, whose bases have one coordinate less (Zitzler, Thiele,
    "Multiobjective optimization using evolutionary algorithms", 1998, define the measure).
    """
    above = [p for p in points if all(x > r for x, r in zip(p, reference, strict=True))]
    if not above:
        return 0.0
    if len(reference) == 1:
        return max(p[0] for p in above) - reference[0]
    volume, ordered = 0.0, sorted(above, key=lambda p: -p[-1])
    for i, point in enumerate(ordered):
        below = ordered[i + 1][-1] if i + 1 < len(ordered) else reference[-1]
        if point[-1] > below:
            base = hypervolume([p[:-1] for p in ordered[: i + 1]], reference[:-1])
            volume += base * (point[-1] - below)
    return volume
