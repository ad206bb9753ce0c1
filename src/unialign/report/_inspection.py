"""Write the page of an inspection from its `results.json`."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unialign._plain_text import count
from unialign.io import replace_file
from unialign.report._format import DASH
from unialign.report._results import read_results
from unialign.report._schema import clean
from unialign.report._tables import plain_rows
from unialign.report._template import fill

_ROWS = 100

Row = tuple[str, list[tuple[str, str]]]


def write_inspection_report(folder: str | os.PathLike[str]) -> Path:
    """Write `report.html` for the inspection in `folder` and return its path.

    Raises:
        DataError: `results.json` cannot be read or does not contain an inspection.
    """
    target = Path(folder) / "report.html"
    found = read_results(folder, "inspect", "inspection", lambda results: isinstance(results.get("combinations"), list))
    replace_file(target, fill("inspection.html.j2", context=_context(clean(found))))
    return target


def _context(results: Mapping[str, Any]) -> dict[str, Any]:
    data, groups, split = results["data"], results["groups"], results["split"]
    broken = sum(sum(found["broken"].values()) for found in results["modalities"].values())
    answer = "No broken cell was found." if not broken else f"**{count(broken, 'cell')}** cannot be read."
    if groups["crossing"]:
        crossing = f"{count(groups['crossing'], 'group')} of equal items"
        answer += f" **{crossing}** in more than one part of the split, so test scores will be too high."
    return {
        "title": f"Inspection of {data['name']}",
        "facts": [
            count(data["items"], "item"),
            count(len(results["modalities"]), "modality", "modalities"),
            f"license {data['license']}",
        ],
        "answer": answer,
        "modality_rows": [_modality_row(name, found) for name, found in results["modalities"].items()],
        "combination_rows": [
            (", ".join(row["modalities"]) or "none", [(f"{row['items']:,}", "")])
            for row in results["combinations"][:_ROWS]
        ],
        "duplicate_rows": [
            (name, [(f"{found[key]:,}", "") for key in ("distinct", "items", "largest")])
            for name, found in results["duplicates"].items()
        ],
        "hashed": results["hashed"],
        "groups": groups,
        "split_given": split["given"],
        "split_rows": [("all items", _parts(split["items"]))]
        + [(name, _parts(found)) for name, found in split["modalities"].items()],
        "label_rows": [(name, [(f"{number:,}", "")]) for name, number in results["labels"]["largest"].items()],
        "classes": results["labels"]["classes"],
        "broken_rows": [
            (
                row["cell"],
                [(row["code"], ""), (row["modality"], ""), (", ".join(row["items"]), ""), (row["detail"], "")],
            )
            for row in results.get("broken", [])[:_ROWS]
        ],
        "broken": broken,
        "notes": data["notes"],
        "environment": plain_rows(results["environment"]),
    }


def _plain_size(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def _modality_row(name: str, found: Mapping[str, Any]) -> Row:
    sizes = found["quartiles"]
    low, median, high = ("", "", "") if sizes is None else (_plain_size(sizes[i]) for i in (0, 2, 4))
    size = (DASH, "") if sizes is None else (f"{median} {found['unit']}", f"{low} to {high}")
    codes = ", ".join(f"{number} {code}" for code, number in found["broken"].items())
    return name, [
        (found["kind"], ""),
        (f"{found['present']:,}", ""),
        (f"{found['cells']:,}", ""),
        (f"{found['bytes'] / 1e6:,.1f} MB", ""),
        size,
        (codes or "0", ""),
        (f"{found['silent'] + found['blank']:,}", ""),
    ]


def _parts(counts: Mapping[str, int]) -> list[tuple[str, str]]:
    return [(f"{counts[name]:,}", "") for name in ("train", "val", "test")]
