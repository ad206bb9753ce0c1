"""Build the rows of the page's tables: metrics with tests, settings, environment, warnings."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unialign._plain_text import count
from unialign.report._format import DASH, NumberFormat
from unialign.report._model import ComparisonResults, MetricEstimate, MetricInfo
from unialign.report._summary import best, metric_style

__all__ = ["metric_rows", "plain_rows", "settings_rows", "warning_rows"]

# Relative to the first objective; signs complement the colors for print and color-blind readers.
_MARKS = {
    "win": ("▼", "worse", "worse than {first} by the paired test"),
    "lose": ("▲", "better", "better than {first} by the paired test"),
    "tie": ("≈", "same", "no reliable difference from {first}"),
}


@dataclass(frozen=True)
class Cell:
    mean: str
    interval: str
    best: bool
    mark: str
    side: str  # "worse", "better" or "same"
    meaning: str


@dataclass(frozen=True)
class MetricRow:
    metric: MetricInfo
    better: str
    cells: tuple[Cell, ...]


def metric_rows(results: ComparisonResults) -> list[MetricRow]:
    """Return one row for each metric that has values."""
    rows = []
    for metric in results.metrics.values():
        if any(math.isfinite(results.estimate(key, metric.key).mean) for key in results.objectives):
            better = {True: "higher is better", False: "lower is better", None: ""}[metric.higher_is_better]
            winner = best(results, metric.key)
            cells = tuple(_cell(results, metric, key, winner) for key in results.objectives)
            rows.append(MetricRow(metric, better, cells))
    return rows


def _cell(results: ComparisonResults, metric: MetricInfo, objective: str, winner: str | None) -> Cell:
    fmt, estimate = metric_style(results, metric), results.estimate(objective, metric.key)
    first = next(iter(results.objectives))
    mark, side, meaning = "", "", ""
    for comparison in results.comparisons:
        if (comparison.metric, comparison.objective, comparison.baseline) == (metric.key, first, objective):
            mark, side, meaning = _MARKS[comparison.verdict]
    return Cell(
        mean=fmt.with_unit(estimate.mean),
        interval=_interval(fmt, estimate),
        best=objective == winner,
        mark=mark,
        side=side,
        meaning=meaning.format(first=results.objectives[first].label),
    )


def _interval(fmt: NumberFormat, estimate: MetricEstimate) -> str:
    """Format as `low to high`; a dash for a number without interval."""
    if math.isfinite(estimate.low) and math.isfinite(estimate.high):
        return f"{fmt.number(estimate.low)} to {fmt.number(estimate.high)}"
    return DASH if math.isfinite(estimate.mean) else ""


def settings_rows(results: ComparisonResults) -> list[tuple[str, list[str]]]:
    """Return the settings of all objectives, those that differ first."""
    flat = {key: _flattened(o.settings) for key, o in results.objectives.items()}
    for settings in flat.values():
        settings.pop("seed", None)  # listed in the header
    names = list(dict.fromkeys(name for settings in flat.values() for name in settings))
    rows = [(name, [flat[key].get(name, DASH) for key in flat]) for name in names]
    rows.sort(key=lambda row: len(set(row[1])) == 1)
    if any(o.parameters is not None for o in results.objectives.values()):
        sizes = [DASH if o.parameters is None else f"{o.parameters:,}" for o in results.objectives.values()]
        rows.append(("parameters", sizes))
    seconds = {key: [r.seconds for r in results.runs_of(key) if r.seconds is not None] for key in results.objectives}
    if any(seconds.values()):
        rows.append(("seconds a run", [f"{math.fsum(s) / len(s):.1f}" if s else DASH for s in seconds.values()]))
    return rows


def plain_rows(mapping: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (name, value) of the nonempty entries of a nested mapping."""
    rows = [(name.replace("_", " ").replace(".", " "), value) for name, value in _flattened(mapping).items()]
    return [row for row in rows if row[1] != DASH]


def warning_rows(results: ComparisonResults) -> list[tuple[str, str, str, str]]:
    """Return (objective, code, message, where), with one row for equal messages of several seeds."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for run in results.runs:
        label = results.objectives[run.objective].label
        for warning in run.warnings:
            where = f"seed {run.seed}" + ("" if warning.step is None else f", step {warning.step:,}")
            found.setdefault((label, warning.code.replace("_", " "), warning.message), []).append(where)
    return [(*key, "; ".join(where) if len(where) <= 6 else count(len(where), "time")) for key, where in found.items()]


def _flattened(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            flat |= _flattened(value, f"{prefix}{key}.")
        else:
            flat[prefix + str(key)] = _written(value)
    return flat


def _written(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return DASH
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list) and not any(isinstance(v, list | Mapping) for v in value):
        return ", ".join(_written(v) for v in value)
    return json.dumps(value, ensure_ascii=False)
