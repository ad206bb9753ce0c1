"""Describe a repair in words and as the content of `results.json`."""

from typing import Any

from unialign._plain_text import percent, table_lines
from unialign.correction._repair import Repair
from unialign.io import describe_environment

_NAMES = {
    "none": "no change",
    "center": "centering",
    "coral": "covariance matching (CORAL)",
    "center_csls": "centering with CSLS scores",
}


def make_results(repair: Repair, *, seconds: float, out: str) -> dict[str, Any]:
    """Return the content of `results.json`."""
    metadata = repair.metadata
    return {
        "schema": 1,
        "environment": describe_environment(),
        "data": {**metadata["data"], "modalities": list(repair.modalities)},
        "protocol": {**metadata["settings"], **metadata["fitted"], "rows": metadata["rows"], "seconds": seconds},
        "answer": answer(repair),
        "choice": repair.choice,
        "index_choice": repair.index_choice,
        "table": repair.table,
        "candidates": repair.candidates,
        "reproduce": f"unialign repair --config {out}/config.yaml --out {out}",
    }


def answer(repair: Repair) -> str:
    """Return the result in one or two sentences."""
    (overall,) = [row for row in repair.table if row["pair"] == "all"]
    before, after = overall["before"]["balanced"]["mean"], overall["after"]["balanced"]["mean"]
    if repair.choice == "none":
        text = (
            f"No repair is needed: no method improves mixed-pool retrieval significantly (NDCG@10 {percent(before)})."
        )
    else:
        text = (
            f"The repair is {_NAMES[repair.choice]}: mixed-pool retrieval on held-out items rises from NDCG@10 "
            f"{percent(before)} to {percent(after)}."
        )
    if repair.index_choice == "center_csls":
        csls = repair.candidates["center_csls"]["balanced"]["mean"]
        text += f" In an index, centering with CSLS scores reaches {percent(csls)}."
    return text


def text_table(repair: Repair) -> str:
    """Return the measurements before and after the repair as plain text, with the reasons of the choice."""
    head = ("pair", "balanced", "own", "cross", "share", "gap")
    body = [(row["pair"], *(_change(row, key) for key in head[1:])) for row in distinct_rows(repair.table)]
    lines = table_lines(head, body)
    lines += [
        f"{_NAMES[name]} is not chosen: {found['reason']}"
        for name, found in repair.candidates.items()
        if found["reason"]
    ]
    return "\n".join(lines)


def distinct_rows(table: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return all rows or, for a single pair, the row of the pair, which equals the row of all modalities."""
    return table[1:] if len(table) == 2 else table


def _change(row: dict[str, Any], key: str) -> str:
    values = [row[side].get(key) for side in ("before", "after")]
    if values[0] is None or values[1] is None:
        return "-"
    numbers = [value["mean"] if isinstance(value, dict) else value for value in values]
    scale, digits = (1, 2) if key in ("share", "gap") else (100, 1)
    return " -> ".join(f"{scale * number:.{digits}f}" for number in numbers)
