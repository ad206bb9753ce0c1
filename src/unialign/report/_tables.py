"""Table rows of the page."""

import json
import math
from collections.abc import Mapping
from typing import Any

from unialign._plain_text import count
from unialign.report._format import DASH
from unialign.report._model import ComparisonResults, MetricInfo, number
from unialign.report._summary import best, chance_note, metric_style

# Marks relative to the first objective. Signs complement the colors for print and color-blind readers.
_MARKS = {
    "win": ("▼", "worse", "worse than {first} in the paired test"),
    "lose": ("▲", "better", "better than {first} in the paired test"),
    "tie": ("≈", "same", "no reliable difference from {first}"),
}


# Metrics that always equal another metric (NMI), or equal another metric if each query has one positive (mAP).
_REPEATED = {"map": "mrr", "nmi": "v_measure"}


def metric_rows(results: ComparisonResults) -> list[dict[str, Any]]:
    """Return one row per metric; a metric that repeats another is listed in the row of the other."""
    return [
        {
            "metric": metric,
            "equal": [results.metrics[key].label for key in _repeats_of(results, metric.key)],
            "chance": chance_note(results, metric).strip(" ()"),
            "better": {True: "higher is better", False: "lower is better", None: ""}[metric.higher_is_better],
            "cells": [_cell(results, metric, key) for key in results.objectives],
        }
        for metric in results.metrics.values()
        if any(math.isfinite(results.estimate(key, metric.key).mean) for key in results.objectives)
        and metric.key not in _repeats_of(results, _REPEATED.get(metric.key, ""))
    ]


def _repeats_of(results: ComparisonResults, metric: str) -> list[str]:
    """Return the metrics with the same values as `metric`, up to a tolerance below the displayed precision."""
    found = []
    for name, original in _REPEATED.items():
        pairs = [(results.estimate(key, name).mean, results.estimate(key, metric).mean) for key in results.objectives]
        if original == metric and name in results.metrics and all(math.isclose(a, b, abs_tol=1e-9) for a, b in pairs):
            found.append(name)
    return found


def _cell(results: ComparisonResults, metric: MetricInfo, objective: str) -> dict[str, Any]:
    fmt, estimate = metric_style(results, metric), results.estimate(objective, metric.key)
    first = next(iter(results.objectives))
    verdicts = [
        c.verdict for c in results.comparisons if (c.metric, c.objective, c.baseline) == (metric.key, first, objective)
    ]
    mark, side, meaning = _MARKS[verdicts[-1]] if verdicts else ("", "", "")
    return {
        "mean": fmt.with_unit(estimate.mean),
        "interval": fmt.interval_with_unit(estimate.low, estimate.high)
        or (DASH if math.isfinite(estimate.mean) else ""),
        "best": objective == best(results, metric.key),
        "mark": mark,
        "side": side,
        "meaning": meaning.format(first=results.objectives[first].label),
    }


def settings_rows(results: ComparisonResults) -> list[tuple[str, list[str]]]:
    """Return one row per setting, with settings that differ between objectives first."""
    flat = {key: _flattened(o.settings) for key, o in results.objectives.items()}
    for settings in flat.values():
        settings.pop("seed", None)  # the seeds are listed in the header
    names = list(dict.fromkeys(name for settings in flat.values() for name in settings))
    rows = [(name, [flat[key].get(name, DASH) for key in flat]) for name in names]
    rows.sort(key=lambda row: len(set(row[1])) == 1)
    if any(o.parameters is not None for o in results.objectives.values()):
        sizes = [DASH if o.parameters is None else f"{o.parameters:,}" for o in results.objectives.values()]
        rows.append(("parameters", sizes))
    seconds = {key: [r.seconds for r in results.runs_of(key) if r.seconds is not None] for key in results.objectives}
    if any(seconds.values()):
        rows.append(("seconds per run", [f"{math.fsum(s) / len(s):.1f}" if s else DASH for s in seconds.values()]))
    return rows


def plain_rows(mapping: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [(name.replace("_", " ").replace(".", " "), value) for name, value in _flattened(mapping).items()]
    return [row for row in rows if row[1] != DASH]


def warning_rows(results: ComparisonResults) -> list[tuple[str, str, str, str]]:
    """Return one row per warning; identical messages from several seeds share a row."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for run in results.runs:
        label = results.objectives[run.objective].label
        for warning in run.warnings:
            step = number(warning.get("step"))
            where = f"seed {run.seed}" + (f", step {int(step):,}" if math.isfinite(step) else "")
            key = (label, str(warning.get("code", "")).replace("_", " "), str(warning.get("message", "")))
            found.setdefault(key, []).append(where)
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
    if value is None or isinstance(value, bool):
        return DASH if value is None else "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list) and not any(isinstance(v, list | Mapping) for v in value):
        return ", ".join(_written(v) for v in value)
    return json.dumps(value, ensure_ascii=False)
