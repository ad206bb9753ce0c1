"""Write the page that compares two versions of embeddings, from its `results.json`."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unialign._plain_text import count
from unialign.io import replace_file
from unialign.report._bars import labeled_bars
from unialign.report._format import number_format
from unialign.report._model import number
from unialign.report._results import read_results
from unialign.report._schema import clean, read_estimate
from unialign.report._tables import plain_rows
from unialign.report._template import fill

_SIGNS = {"problem": "✗ problem", "warning": "▲ warning", "note": "● note", "ok": "✓ ok"}


def write_drift_report(folder: str | os.PathLike[str]) -> Path:
    """Write `report.html` for the comparison in `folder` and return the path of the report.

    Raises:
        DataError: `results.json` cannot be read or does not contain such a comparison.
    """
    target = Path(folder) / "report.html"
    results = read_results(
        folder, "diagnose --against", "verdicts", lambda found: isinstance(found.get("verdicts"), dict)
    )
    page = fill("drift.html.j2", styles=("page.css", "diagnosis.css"), context=_context(clean(results)))
    replace_file(target, page)
    return target


def _context(results: Mapping[str, Any]) -> dict[str, Any]:
    numbers = results["numbers"]
    overlaps = [
        (f"{name}, {label}", read_estimate(m[key]))
        for name, m in numbers.items()
        for key, label in (("overlap@10", "both new"), ("stale_overlap@10", "only the queries new"))
        if m[key] is not None
    ]
    items = max((m["items"] for m in numbers.values()), default=0)
    return {
        "title": "Comparison of two versions",
        "facts": [count(items, "item"), count(len(numbers), "modality", "modalities")],
        "answer": results["answer"],
        "severity": results["severity"],
        "verdicts": [
            {"name": name, "sign": _SIGNS[verdict["severity"]], **verdict}
            for name, verdict in results["verdicts"].items()
        ],
        "overlap": labeled_bars("overlap", "Neighbors kept", number_format([1.0], unit="percent"), overlaps)
        if overlaps
        else None,
        "row_numbers": [(name, _row_cells(m)) for name, m in numbers.items()],
        "sample_numbers": [(name, _sample_cells(m)) for name, m in numbers.items()],
        "worst": [(name, m["worst"]) for name, m in numbers.items() if m["worst"]],
        "notes": results["notes"],
        "issue_summary": results["issue_summary"],
        "sources": [
            (f"{name}, {side}", place[side]) for name, place in results["data"].items() for side in ("old", "new")
        ],
        "protocol": plain_rows(results["protocol"]),
        "environment": plain_rows(results["environment"]),
        "reproduce": results["reproduce"],
    }


Cell = tuple[str, str]  # value, and the small text below it


def _row_cells(m: Mapping[str, Any]) -> list[Cell]:
    invalid = m["invalid_old"] + m["invalid_new"]
    return [
        (f"{m['items']:,}", f"{invalid:,} invalid" if invalid else ""),
        (" → ".join(dict.fromkeys(f"{dim:,}" for dim in m["dims"])), m["precision"]),
        (_percent(m["equal"]), ""),
        *((_cosine(m["cosine"][q]), "") for q in ("0.5", "0.05", "0.01", "0.0")),
        (f"{m['changed']:,}", ""),
        (_ratio(m["scale"]["median"]), f"{_ratio(m['scale']['low'])} to {_ratio(m['scale']['high'])}"),
    ]


def _sample_cells(m: Mapping[str, Any]) -> list[Cell]:
    return [
        (f"{m['sampled']:,}", ""),
        *(_estimate(m[key]) for key in ("overlap@10", "stale_overlap@10")),
        *(
            (_cosine(m[key]), "")
            for key in ("cosine_agreement", "centered_cosine", "random_cosine", "rotated_cosine", "residual")
        ),
    ]


def _estimate(value: Any) -> Cell:
    if value is None:
        return "–", ""
    fmt, found = number_format([1.0], unit="percent"), read_estimate(value)
    return fmt.with_unit(found.mean), fmt.interval_with_unit(found.low, found.high)


def _percent(value: Any) -> str:
    return number_format([1.0], unit="percent").with_unit(number(value))


def _plain(value: Any) -> str:
    return number_format([number(value)], unit="number").number(number(value))


def _ratio(value: Any) -> str:
    found = number(value)
    if 0 < found < 0.01 or found >= 1e6:
        return f"{found:.2g}"
    return f"{found:.3f}" if found < 10 else _plain(found)


def _cosine(value: Any) -> str:
    found = number(value)
    return f"{found:.6f}" if 0.99 < found < 1 else _plain(found)
