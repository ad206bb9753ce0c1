"""Describe a repair in words."""

from typing import TYPE_CHECKING, Any

from unialign._plain_text import percent, table_lines

if TYPE_CHECKING:
    from unialign.correction._repair import Repair

_LEGEND = (
    "Each column shows the value before and after the repair, on held-out items, with all modalities in one gallery.",
    "balanced: mean of own and cross",
    "own: NDCG@10 in %, if the item is in the gallery in the modality of the query",
    "cross: NDCG@10 in %, if the item is in the gallery in another modality",
    "share: number of results in the modality of the query, divided by its fair share; 1 is unbiased",
    "gap: distance between the means of both modalities, corrected for sampling noise",
)
_NAMES = {
    "none": "no change",
    "center": "centering",
    "coral": "covariance matching (CORAL)",
    "center_csls": "centering with CSLS scores",
}


def answer(repair: "Repair") -> str:
    (overall,) = [row for row in repair.table if row["pair"] == "all"]
    before, after = overall["before"]["balanced"]["mean"], overall["after"]["balanced"]["mean"]
    if repair.choice == "none":
        sentence = (
            f"No repair is needed: no method improves mixed-pool retrieval significantly (NDCG@10 {percent(before)})."
        )
    else:
        sentence = (
            f"The repair is {_NAMES[repair.choice]}: mixed-pool retrieval on held-out items rises from NDCG@10 "
            f"{percent(before)} to {percent(after)}."
        )
    if repair.index_choice == "center_csls":
        csls = repair.candidates["center_csls"]["balanced"]["mean"]
        sentence += f" In an index, centering with CSLS scores reaches {percent(csls)}."
    return sentence


def text(repair: "Repair") -> str:
    head = ("pair", "balanced", "own", "cross", "share", "gap")
    body = [(row["pair"], *(_change(row, key) for key in head[1:])) for row in distinct_rows(repair.table)]
    reasons = [
        f"{_NAMES[name]} is not chosen: {found['reason']}"
        for name, found in repair.candidates.items()
        if found["reason"]
    ]
    return "\n".join([answer(repair), "", *table_lines(head, body), *reasons, "", *_LEGEND])


def distinct_rows(table: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return table[1:] if len(table) == 2 else table


def _change(row: dict[str, Any], key: str) -> str:
    values = [row[side].get(key) for side in ("before", "after")]
    if values[0] is None or values[1] is None:
        return "-"
    numbers = [value["mean"] if isinstance(value, dict) else value for value in values]
    scale, digits = (1, 2) if key in ("share", "gap") else (100, 1)
    return " -> ".join(f"{scale * number:.{digits}f}" for number in numbers)
