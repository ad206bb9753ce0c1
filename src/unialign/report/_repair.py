"""Write the page of a repair from its `results.json`."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from unialign._plain_text import count
from unialign.io import replace_file
from unialign.report._bars import labeled_bars
from unialign.report._format import DASH, number_format
from unialign.report._model import MetricEstimate
from unialign.report._results import read_results
from unialign.report._schema import clean, read_estimate
from unialign.report._tables import plain_rows
from unialign.report._template import fill

# Maximum number of pairs shown as bars; the table lists all pairs.
_PANELS = 15
_UNITS = {"balanced": "percent", "own": "percent", "cross": "percent", "label_precision": "percent", "share": "number"}
_METHODS = {"none": "No change", "center": "Centering", "coral": "CORAL", "center_csls": "Centering + CSLS"}


def write_repair_report(folder: str | os.PathLike[str]) -> Path:
    """Write `report.html` for the repair in `folder` and return its path.

    Raises:
        DataError: `results.json` cannot be read or does not contain a repair.
    """
    target = Path(folder) / "report.html"
    results = read_results(folder, "repair", "repair", lambda found: isinstance(found.get("candidates"), dict))
    replace_file(target, fill("repair.html.j2", context=_context(clean(results))))
    return target


def _context(results: Mapping[str, Any]) -> dict[str, Any]:
    data, protocol, table = results["data"], results["protocol"], results["table"]
    if len(table) == 2:  # If there is only one pair, the row of all modalities equals the row of this pair.
        table = table[1:]
    return {
        "title": f"Repair of {data['name']}",
        "facts": [
            count(data["items"], "item"),
            count(len(data["modalities"]), "modality", "modalities"),
            f"{count(protocol['held_out_items'], 'item')} held out",
        ],
        "answer": results["answer"],
        "bars": _bars(table),
        "pair_rows": _pair_rows(table),
        "candidate_rows": _candidate_rows(results),
        "reasons": [
            f"{_METHODS.get(name, name)} is not chosen: {found['reason']}."
            for name, found in results["candidates"].items()
            if found["reason"]
        ],
        "protocol": plain_rows(protocol),
        "environment": plain_rows(results["environment"]),
        "reproduce": results["reproduce"],
    }


def _bars(table: Sequence[Mapping[str, Any]]) -> Markup:
    rows = [
        (f"{row['pair']}, {side}", read_estimate(row[side]["balanced"]))
        for row in table[:_PANELS]
        for side in ("before", "after")
    ]
    return labeled_bars("balanced", "Balanced NDCG@10", number_format([1.0], unit="percent"), rows)


def _pair_rows(table: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[tuple[str, str]]]]:
    return [
        (f"{row['pair']}, {side}", [*_cells(row[side]), (_plain(row[side].get("gap")), "")])
        for row in table
        for side in ("before", "after")
    ]


def _candidate_rows(results: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    chosen = {results["choice"]: "chosen", results["index_choice"]: "chosen for an index"}
    if results["choice"] == results["index_choice"]:
        chosen[results["choice"]] = "chosen"
    return [
        (_METHODS.get(name, name), [*_cells(found), (chosen.get(name, DASH), "")])
        for name, found in results["candidates"].items()
    ]


def _cells(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    cells = []
    for name, unit in _UNITS.items():
        estimate = MetricEstimate(float("nan")) if values.get(name) is None else read_estimate(values[name])
        fmt = number_format([1.0], unit=unit)
        cells.append((fmt.with_unit(estimate.mean), fmt.interval_with_unit(estimate.low, estimate.high)))
    return cells


def _plain(value: Any) -> str:
    return DASH if value is None else number_format([1.0], unit="number").number(float(value))
