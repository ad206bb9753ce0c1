"""Write the page of a search for training settings from its `results.json`."""

import math
import os
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from unialign._plain_text import count, duration, join_words
from unialign.io import replace_file
from unialign.report._bars import labeled_bars
from unialign.report._format import NumberFormat, number_format, p_value
from unialign.report._model import number
from unialign.report._results import read_results
from unialign.report._schema import clean, read_estimate
from unialign.report._tables import plain_rows
from unialign.report._template import fill
from unialign.report._tuning_charts import Point, mark, order_chart, scatter

_DEFAULT, _CHOSEN = "default", "tuned"
_BASIC = ("recall@1", "joint_recall@1", "label_map")


def write_tuning_report(folder: str | os.PathLike[str]) -> Path:
    """Write `report.html` for the search in `folder` and return its path.

    Raises:
        DataError: `results.json` cannot be read or does not contain a search.
    """
    target = Path(folder) / "report.html"
    results = read_results(folder, "tune", "search", lambda found: found.get("kind") == "tuning")
    replace_file(target, fill("tuning.html.j2", context=_context(clean(results)), styles=("page.css", "tuning.css")))
    return target


def _context(results: Mapping[str, Any]) -> dict[str, Any]:
    search, data = results["search"], results["data"]
    metrics = _front_metrics(results)
    names = list(dict.fromkeys((*[name for name in search["metric"] if name != "auto"], *_BASIC)))
    names = [name for name in names if any(name in trial["metrics"] for trial in results["trials"])]
    return {
        "title": f"Settings for {data['name']}",
        "facts": [
            count(search["finished"], "trial"),
            f"for {join_words(_label(results, name) for name in search['metric'])}",
            f"{data['train_items']:,} training, {data['val_items']:,} validation, {data['test_items']:,} test items",
            f"{duration(search['elapsed_seconds'])}",
        ],
        "answer": _sentences(results["answer"]),
        "figures": _figures(results, metrics),
        "legend": _LEGEND,
        "mark": mark,
        "hypervolume": _hypervolume(results),
        "earlier": results["test"]["earlier"],
        "test_heads": ["Test split", *_test_labels(results)],
        "test_rows": _test_rows(results),
        "test_charts": _test_charts(results),
        "settings_rows": _settings_rows(results),
        "has_default": results["chosen"] != results["default"],
        "candidate_heads": ["Settings", "Seeds", *(_label(results, name) for name in [*names, *_auto(results)])],
        "candidate_rows": [_candidate_row(results, one, [*names, *_auto(results)]) for one in results["candidates"]],
        "seeds": max(one["seeds"] for one in results["candidates"]),
        "trial_heads": ["Trial", "State", *(_label(results, name) for name in names), "Seconds"],
        "trial_rows": _trial_rows(results, names),
        "protocol": plain_rows(_protocol(results)),
        "environment": plain_rows(results["environment"]),
        "reproduce": results["reproduce"],
    }


# Class of the mark in charts -> text.
_LEGEND = (
    ("chosen", "chosen"),
    ("default", "default"),
    ("shipped", "other shipped settings"),
    ("front", "on the front"),
    ("trial", "other trials"),
    ("pruned", "stopped early"),
)


def _sentences(answer: str) -> list[str]:
    """The answer has one part about the validation split and one about the test split."""
    before, found, after = answer.partition("On ")
    return [part for part in (before.strip(), (found + after).strip()) if part]


def _front_metrics(results: Mapping[str, Any]) -> list[str]:
    """Metrics of the scatter charts."""
    wanted = results["search"]["metric"]
    return list(wanted) if len(wanted) > 1 else []


def _figures(results: Mapping[str, Any], metrics: Sequence[str]) -> list[tuple[str, str, Any]]:
    trials = results["trials"]
    if not metrics:
        name = results["search"]["metric"][0]
        points = [_point(results, trial, None, name) for trial in trials]
        label = _label(results, name)
        lower = results["metrics"][name]["better"] == "lower"
        chart = order_chart("order", label, points, _format(results, name), lower_is_better=lower)
        figures = [(f"{label} by trial", "the line is the best so far", chart)]
        metrics = [name for name in _BASIC if any(name in trial["metrics"] for trial in trials)]
    else:
        figures = []
    for first, second in combinations(metrics, 2):
        points = [_point(results, trial, first, second) for trial in trials]
        key = f"scatter-{len(figures)}"
        labels = _label(results, first), _label(results, second)
        chart = scatter(key, labels, points, (_format(results, first), _format(results, second)))
        figures.append((f"{labels[0]} and {labels[1]}", "of all trials on the validation split", chart))
    return figures


def _point(results: Mapping[str, Any], trial: Mapping[str, Any], first: str | None, second: str) -> Point:
    x = float(trial["number"]) if first is None else number(trial["metrics"].get(first))
    return Point(x, number(trial["metrics"].get(second)), _kind(results, trial), f"trial {_title(trial)}")


def _kind(results: Mapping[str, Any], trial: Mapping[str, Any]) -> str:
    if trial["state"] != "complete":
        return "pruned"
    if trial["number"] == results["chosen"]:
        return "chosen"
    if trial["number"] == results["default"]:
        return "default"
    if trial["source"] == "shipped":
        return "shipped"
    return "front" if trial["number"] in results["front"] else "trial"


def _title(trial: Mapping[str, Any]) -> str:
    return f"{trial['number']}: {trial['name']}"


def _test_labels(results: Mapping[str, Any]) -> list[str]:
    keys = list(results["test"]["summary"])
    labels = ["Chosen" if key == _CHOSEN else "Default" for key in keys]
    return [*labels, *(["Difference", "p, corrected"] if len(keys) > 1 else [])]


def _test_rows(results: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Metrics whose difference is tested, and the metrics of the search."""
    summary = results["test"]["summary"]
    shown = [name for name, metric in results["metrics"].items() if metric["primary"]]
    shown += [name for name in results["search"]["metric"] if name not in shown]
    rows = []
    for name in shown:
        if name not in summary[_CHOSEN]:
            continue
        fmt = _format(results, name)
        cells = []
        for found in summary.values():
            estimate = read_estimate(found[name])
            cells.append((fmt.with_unit(estimate.mean), fmt.interval_with_unit(estimate.low, estimate.high)))
        if len(summary) > 1:
            cells += _difference(results, name, fmt)
        lower = ", lower is better" if results["metrics"][name]["better"] == "lower" else ""
        rows.append((_label(results, name) + lower, cells))
    return rows


def _difference(results: Mapping[str, Any], name: str, fmt: NumberFormat) -> list[tuple[str, str]]:
    record = next((r for r in results["test"]["comparisons"] if r["metric"] == name), None)
    if record is None:
        return [("", ""), ("", "")]
    p = p_value(number(record.get("p_holm"))).removeprefix("p = ").removeprefix("p ")
    value, low, high = (number(record[key]) for key in ("difference", "low", "high"))
    sign = "+" if value > 0 else ""
    return [(sign + fmt.number(value), fmt.interval(low, high)), (p, "")]


def _test_charts(results: Mapping[str, Any]) -> list[tuple[str, str, Any]]:
    summary, charts = results["test"]["summary"], []
    for name in _BASIC:
        if name not in summary[_CHOSEN]:
            continue
        rows = [
            ("chosen" if key == _CHOSEN else "default", read_estimate(found[name])) for key, found in summary.items()
        ]
        label = _label(results, name)
        charts.append(
            (
                label,
                "test split, with 95 % intervals",
                labeled_bars(f"test-{name}", label, _format(results, name), rows),
            )
        )
    return charts


def _settings_rows(results: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    chosen, default = (
        next(trial["settings"] for trial in results["trials"] if trial["number"] == results[key])
        for key in ("chosen", "default")
    )
    names = dict.fromkeys((*chosen, *default))
    return [(name.replace("_", " "), _text(chosen.get(name)), _text(default.get(name))) for name in names]


def _candidate_row(
    results: Mapping[str, Any], one: Mapping[str, Any], names: Sequence[str]
) -> tuple[str, bool, list[str]]:
    cells = [str(one["seeds"])]
    cells += [_format(results, name).with_unit(number(one["metrics"].get(name))) for name in names]
    word = ", default" if one["number"] == results["default"] else ""
    return f"{_title(one)}{word}", one["number"] == results["chosen"], cells


def _trial_rows(results: Mapping[str, Any], names: Sequence[str]) -> list[dict[str, Any]]:
    order = sorted(
        results["trials"],
        key=lambda trial: (trial["state"] != "complete", -_finite(number(trial["score"])), trial["number"]),
    )
    return [
        {
            "title": _title(trial),
            "settings": ", ".join(f"{name} {_text(value)}" for name, value in trial["settings"].items()),
            "state": _state(results, trial),
            "kind": _kind(results, trial),
            "cells": [
                *(_format(results, name).with_unit(number(trial["metrics"].get(name))) for name in names),
                f"{trial['seconds']:.1f}",
            ],
        }
        for trial in order
    ]


def _state(results: Mapping[str, Any], trial: Mapping[str, Any]) -> str:
    if trial["state"] != "complete":
        return {"pruned": "stopped early", "failed": "not finite"}[trial["state"]]
    return "on the front" if len(results["search"]["metric"]) > 1 and trial["number"] in results["front"] else ""


def _hypervolume(results: Mapping[str, Any]) -> str:
    found = results["hypervolume"]
    if found is None:
        return ""
    reference = ", ".join(
        f"{_label(results, name)} {_format(results, name).with_unit(number(value))}"
        for name, value in found["reference"].items()
    )
    return (
        f"Hypervolume of the front: {_small(found['all'])}; of the shipped settings alone: {_small(found['shipped'])}. "
        f"The reference point has the worst value of each metric among the shipped settings: {reference}."
    )


def _protocol(results: Mapping[str, Any]) -> dict[str, Any]:
    search, data = results["search"], results["data"]
    skipped = ("fixed", "finished", "complete", "pruned", "failed", "shipped", "trial_seconds", "elapsed_seconds")
    counts = f"{search['finished']} ({search['pruned']} stopped early, {search['failed']} not finite)"
    return {
        "data": data["name"],
        "fingerprint": data["fingerprint"],
        "modalities": ", ".join(data["modalities"]),
        **{name: value for name, value in search.items() if name not in skipped and value is not None},
        "fixed": search["fixed"] or "nothing",
        "trials finished": counts,
        "seconds of training": search["trial_seconds"],
        "seeds of the final runs": ", ".join(map(str, results["test"]["protocol"]["seeds"])),
        "tests": results["test"]["protocol"]["tests"],
    }


def _auto(results: Mapping[str, Any]) -> list[str]:
    return ["auto"] if "auto" in results["search"]["metric"] else []


def _label(results: Mapping[str, Any], name: str) -> str:
    return str(results["metrics"][name]["label"])


def _format(results: Mapping[str, Any], name: str) -> NumberFormat:
    if name == "auto":
        return NumberFormat(percent=False, decimals=3)
    values = [number(trial["metrics"].get(name)) for trial in results["trials"]]
    return number_format(values, unit=results["metrics"][name]["unit"])


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _small(value: float) -> str:
    return f"{value:.3g}"


def _finite(value: float) -> float:
    return value if math.isfinite(value) else -math.inf
