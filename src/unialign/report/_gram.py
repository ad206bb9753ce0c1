"""Write the page of an evaluation by the protocol `gram` from its `results.json`."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unialign._plain_text import count, join_words
from unialign.io import replace_file
from unialign.report._bars import labeled_bars
from unialign.report._format import DASH, NumberFormat
from unialign.report._model import MetricEstimate, number
from unialign.report._results import read_results
from unialign.report._schema import clean, read_estimate
from unialign.report._tables import plain_rows
from unialign.report._template import fill

_PERCENT = NumberFormat(percent=True, decimals=1)
_RANK = NumberFormat(percent=False, decimals=1)
_JOINT = ("centroid", "volume")


def write_gram_report(folder: str | os.PathLike[str]) -> Path:
    """Write `report.html` for the evaluation in `folder` and return its path.

    Raises:
        DataError: `results.json` cannot be read or has no results of the protocol `gram`.
    """
    target = Path(folder) / "report.html"
    what = "results of the protocol gram"
    results = read_results(
        folder, "evaluate --protocol gram", what, lambda found: isinstance(found.get("gram"), Mapping)
    )
    replace_file(target, fill("gram.html.j2", context=_context(clean(results))))
    return target


def _context(results: Mapping[str, Any]) -> dict[str, Any]:
    found, data = results["gram"], results["data"]
    every = found["sets"]["all"]
    names = _direction_names(found)
    published = found["published"]
    return {
        "title": f"Captions and clips of {data['name']}",
        "facts": [
            count(every["clips"], "clip"),
            count(every["captions"], "caption"),
            f"captions: {found['captions']}",
            f"split: {data['split']}",
        ],
        "lead": _lead(found, names),
        "notes": _notes(every, found),
        "charts": [(names[direction], _chart(every, direction, f"recall-{i}")) for i, direction in enumerate(names)],
        "cuts": [f"R@{cut}" for cut in found["k"]],
        "tables": [table for name, part in found["sets"].items() for table in _tables(name, part, found, names)],
        "published": None if published is None else _published(found, published),
        "protocol": plain_rows(results["protocol"]),
        "data": plain_rows(
            {"name": data["name"], "fingerprint": data["fingerprint"], "items": data["items"], "split": data["split"]}
        ),
        "environment": plain_rows(results["environment"]),
        "reproduce": results["reproduce"],
    }


def _direction_names(found: Mapping[str, Any]) -> dict[str, str]:
    joint = "+".join(found["joint"])
    return {"text->joint": f"{found['text']}->{joint}", "joint->text": f"{joint}->{found['text']}"}


def _lead(found: Mapping[str, Any], names: Mapping[str, str]) -> str:
    every, cut = found["sets"]["all"], found["k"][0]
    parts = []
    for direction, name in names.items():
        score = every["entries"][0]["score"]
        joint = _estimate(_entry(every, direction, score), f"recall@{cut}")
        best = every["best_single"][direction]
        text = f"{name} has {_PERCENT.with_unit(joint.mean)} with {score}"
        if best != score:
            single = _estimate(_entry(every, direction, best), f"recall@{cut}")
            text += f" and {_PERCENT.with_unit(single.mean)} with {best} alone, the best single modality"
        parts.append(text)
    return f"R@{cut} of the first stage: {'; '.join(parts)}."


def _notes(every: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    present = join_words([f"{n:,} with {name}" for name, n in every["present"].items()])
    notes = [f"The gallery contains every clip of the split: {count(every['clips'], 'clip')}, {present}."]
    if every["empty"]:
        notes.append(
            f"{count(every['empty'], 'clip')} without media: scored as in a random order, as an answer and as a query."
        )
    if every["without_caption"]:
        notes.append(f"{count(every['without_caption'], 'clip')} without a caption: used only as candidates.")
    if len(found["joint"]) > 1:
        notes.append("The best single modality is chosen on these clips, so its number is slightly too high.")
    return notes


def _chart(part: Mapping[str, Any], direction: str, key: str) -> Any:
    metric = next(iter(part["entries"][0]["metrics"]))
    rows = [
        (_label(entry, part), _estimate(entry, metric)) for entry in part["entries"] if entry["direction"] == direction
    ]
    return labeled_bars(key, f"R@1, {direction}", _PERCENT, rows)


def _tables(name: str, part: Mapping[str, Any], found: Mapping[str, Any], names: Mapping[str, str]) -> list[Any]:
    """Return one table per direction."""
    title = "All clips" if name == "all" else "Clips with audio"
    tables = []
    for direction, shown in names.items():
        entries = [entry for entry in part["entries"] if entry["direction"] == direction]
        first = entries[0]
        chance = _PERCENT.with_unit(number(first["chance"][f"recall@{found['k'][0]}"]))
        tables.append(
            {
                "title": f"{title}: {shown}",
                "note": f"{first['queries']:,} queries, {first['gallery']:,} candidates; R@{found['k'][0]} of a random "
                f"order: {chance}.",
                "rows": [
                    {
                        "score": _label(entry, part),
                        "stage": entry["stage"],
                        "cells": _cells(entry, found["k"]),
                        "at_chance": f"{entry['at_chance']:,}",
                    }
                    for entry in entries
                ],
            }
        )
    return tables


def _cells(entry: Mapping[str, Any], cutoffs: Sequence[int]) -> list[tuple[str, str]]:
    formats = [*((f"recall@{cut}", _PERCENT) for cut in cutoffs), ("median_rank", _RANK)]
    found = [(_estimate(entry, metric), form) for metric, form in formats]
    return [(form.number(e.mean), form.interval(e.low, e.high)) for e, form in found]


def _published(found: Mapping[str, Any], published: Mapping[str, Any]) -> dict[str, Any]:
    """Return the table of published numbers, with the rows of the evaluated space first."""
    rows = []
    for row in (*published["own"], *published["rows"]):
        values = (row["text_to_clip"], row["clip_to_text"])
        rows.append(
            {
                "model": row["model"],
                "cells": [DASH if value is None else f"{number(value):.1f}" for value in values],
                "stages": "not stated" if row["stages"] is None else str(row["stages"]),
                "gallery": f"{row['gallery'] or published['gallery']:,}",
                "source": row["source"],
                "own": row in published["own"],
            }
        )
    clips, name = found["sets"]["all"]["clips"], published["benchmark"]
    warning = (
        f"These data have {count(clips, 'clip')}, but the test set of {name} has {published['gallery']:,}; the "
        "numbers cannot be compared."
    )
    return {
        "benchmark": name,
        "note": published["note"],
        "unit": published["unit"],
        "rows": rows,
        "warning": warning if clips != published["gallery"] else "",
    }


def _entry(part: Mapping[str, Any], direction: str, score: str, stage: int = 1) -> Mapping[str, Any]:
    wanted = (direction, score, stage)
    return next((e for e in part["entries"] if (e["direction"], e["score"], e["stage"]) == wanted), {})


def _label(entry: Mapping[str, Any], part: Mapping[str, Any]) -> str:
    score = str(entry["score"])
    is_best = score not in _JOINT and len(part["present"]) > 1 and score == part["best_single"][entry["direction"]]
    return f"{score} alone (best)" if is_best else f"{score} alone" if score in part["present"] else score


def _estimate(entry: Mapping[str, Any], metric: str) -> MetricEstimate:
    return read_estimate(entry["metrics"][metric] if entry else {"mean": None, "low": None, "high": None})
