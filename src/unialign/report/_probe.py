"""Write the page of a probe from its `results.json`."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unialign._plain_text import count
from unialign.io import replace_file
from unialign.report._bars import bars
from unialign.report._format import DASH, NumberFormat
from unialign.report._model import number
from unialign.report._results import read_results
from unialign.report._schema import clean, read_estimate
from unialign.report._tables import plain_rows
from unialign.report._template import fill

_TASKS = {"zero_shot": "Zero-shot classification", "linear": "Linear probe", "knn": "k-nearest-neighbor probe"}
_METRICS = {"top1": "Top-1", "top5": "Top-5", "class_mean": "Class mean"}
_PERCENT = NumberFormat(percent=True, decimals=1)
# Maximum number of classes in the table; the file lists all.
_CLASSES = 200


def write_probe_report(folder: str | os.PathLike[str]) -> Path:
    """Write `report.html` for the probe in `folder` and return its path.

    Raises:
        DataError: `results.json` cannot be read or does not contain a probe.
    """
    target = Path(folder) / "report.html"
    results = read_results(folder, "probe", "probe", lambda found: found.get("kind") == "probe")
    replace_file(target, fill("tables.html.j2", context=_context(clean(results))))
    return target


def _context(results: Mapping[str, Any]) -> dict[str, Any]:
    task, metrics = _TASKS[results["task"]], results.get("metrics", {})
    estimates = {_METRICS[name]: read_estimate(value) for name, value in metrics.items()}
    chance = number(results.get("chance"))
    chart = bars(
        "accuracy", "Accuracy", _PERCENT, list(estimates.items()), floor=(chance, f"chance {_PERCENT.number(chance)}")
    )
    counts = results["counts"]
    classified = counts["test"] if "test" in counts else counts["items"]
    return {
        "kicker": task,
        "title": f"Classes of {results['data']['name']} by {results['modality']}",
        "facts": [
            count(results["classes"], "class", "classes"),
            f"{classified:,} items classified",
            "features of the encoder" if results["input"] == "features" else "embeddings of the space",
        ],
        "answer": _answer(results, task),
        "figures": [("Accuracy", "%, with 95 % intervals", chart)],
        "notes": [
            "Top-1 and top-5: fraction of items whose class has the highest score, or one of the five highest. Class "
            "mean: mean over classes of the fraction of correct items. Intervals are percentile bootstraps over items; "
            "the classifier is fixed."
        ],
        "sections": [section for section in (_classes(results), _settings(results)) if section["rows"]],
        "protocol": plain_rows(
            {
                "data": results["data"],
                "space": results["space"],
                "settings": results["settings"],
                "items": counts,
                **results["protocol"],
            }
        ),
        "environment": plain_rows(results["environment"]),
        "reproduce": results["reproduce"],
    }


def _answer(results: Mapping[str, Any], task: str) -> str:
    top1 = read_estimate(results["metrics"]["top1"])
    above = "" if top1.low > number(results["majority"]) else ", which is not reliably above a constant prediction"
    article = "" if results["task"] == "zero_shot" else "The "
    name = task if not article else task[0].lower() + task[1:]
    return (
        f"{article}{name} of {results['modality']} is correct for {_PERCENT.with_unit(top1.mean)} of the items "
        f"({_PERCENT.interval_with_unit(top1.low, top1.high)}){above}. Chance is "
        f"{_PERCENT.with_unit(number(results['chance']))}, the most frequent class "
        f"{_PERCENT.with_unit(number(results['majority']))}."
    )


def _classes(results: Mapping[str, Any]) -> dict[str, Any]:
    found = sorted(results["per_class"], key=lambda record: (record["top1"], -record["items"]))
    notes = ["The classes with the lowest accuracy come first."]
    if len(found) > _CLASSES:
        notes.append(f"The table lists {_CLASSES} of {len(found):,} classes; results.json lists all.")
    return {
        "key": "classes",
        "title": "Classes",
        "notes": notes,
        "heads": ["Class", "Items", "Top-1", "Most frequent error"],
        "rows": [
            (
                str(record["class"]),
                [
                    (f"{record['items']:,}", ""),
                    (_PERCENT.with_unit(number(record["top1"])), ""),
                    (DASH if record["confused_with"] is None else str(record["confused_with"]), ""),
                ],
            )
            for record in found[:_CLASSES]
        ],
    }


def _settings(results: Mapping[str, Any]) -> dict[str, Any]:
    chosen, tried = results["settings"], results["validation"]
    names = [name for name in ("C", "k", "temperature") if tried and name in tried[0]]
    return {
        "key": "settings",
        "title": "Choice of settings",
        "notes": ["The setting with the highest accuracy on the validation items is used."],
        "heads": [", ".join(names), "Top-1 on validation items", "Choice"],
        "rows": [
            (
                ", ".join(f"{record[name]:g}" for name in names),
                [
                    (_PERCENT.with_unit(number(record["top1"])), ""),
                    ("chosen" if all(record[name] == chosen[name] for name in names) else DASH, ""),
                ],
            )
            for record in tried
        ],
    }
