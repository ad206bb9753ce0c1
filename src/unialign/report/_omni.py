"""Write the page of an evaluation by the protocol `omni` from its `results.json`."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unialign._plain_text import count
from unialign.io import replace_file
from unialign.report._bars import labeled_bars
from unialign.report._format import NumberFormat, p_value
from unialign.report._model import number
from unialign.report._results import read_results
from unialign.report._schema import clean, read_estimate
from unialign.report._tables import plain_rows
from unialign.report._template import fill

_FORMATS = {
    "percent": NumberFormat(percent=True, decimals=1),
    "points": NumberFormat(percent=True, decimals=1),
    "number": NumberFormat(percent=False, decimals=3),
}
# Maximum number of bars; the tables have all pairs.
_BARS = 20


def write_omni_report(folder: str | os.PathLike[str]) -> Path:
    """Write `report.html` for the evaluation in `folder` and return its path.

    Raises:
        DataError: `results.json` cannot be read or has no results of the protocol `omni`.
    """
    target = Path(folder) / "report.html"
    what = "results of the protocol omni"
    results = read_results(folder, "evaluate --protocol omni", what, lambda found: isinstance(found.get("omni"), dict))
    replace_file(target, fill("tables.html.j2", context=_context(clean(results))))
    return target


def _context(results: Mapping[str, Any]) -> dict[str, Any]:
    found, data, pairs = results["omni"], results["data"], results["omni"]["pairs"]
    k, first = found["k"], next(iter(pairs.values()))
    pool = (
        f"Every pair is measured on the same {first['items']:,} items, which have all modalities."
        if found["pool"] == "shared"
        else "Each pair is measured on the items that have both modalities, which differ between pairs."
    )
    return {
        "kicker": "Modalities on the same items",
        "title": f"Modalities of {data['name']}",
        "facts": [
            f"{first['items']:,} of {count(found['items'], 'item')}"
            if found["pool"] == "shared"
            else count(found["items"], "item"),
            count(len(data["modalities"]), "modality", "modalities"),
            f"split: {data['split']}",
        ],
        "answer": found["answer"],
        "figures": [
            (f"NDCG@{k}", "by direction, %, with 95 % intervals", _direction_bars(pairs)),
            ("Common neighbors", f"fraction of the {k} nearest items, %, with 95 % intervals", _pair_bars(pairs)),
        ],
        "notes": [pool],
        "sections": [
            {
                "key": "directions",
                "title": "Directions",
                "notes": [
                    "R@1: fraction of queries whose item ranks first (chance "
                    f"{_chance(first, 'recall@1_forward')}). The difference between the two directions is paired "
                    "by item; p-values are corrected for all pairs (Holm)."
                ],
                "heads": ["Direction", "R@1", f"NDCG@{k}", "NDCG, minus reverse", "p, corrected"],
                "rows": [row for pair in pairs.values() for row in _direction_rows(pair)],
            },
            {
                "key": "equivalence",
                "title": "Equivalence and gap",
                "notes": [
                    f"Common neighbors: fraction of the {k} nearest items that both modalities of an item have in "
                    f"common; {_chance(first, 'neighbor_agreement')} for unrelated rows. Rank correlation: "
                    "Spearman's, of the cosines of an item to all others in both modalities; 0 for unrelated rows. "
                    "Gap: distance between the means of the two modalities. The debiased gap is corrected for "
                    "sampling noise."
                ],
                "heads": ["Pair", "Common neighbors", "Rank correlation", "Gap", "Gap, debiased"],
                "rows": _rows(
                    found, ("neighbor_agreement", "rank_correlation", "gap", "gap_debiased"), with_mean=len(pairs) > 1
                ),
            },
            {
                "key": "mixed",
                "title": "Mixed galleries",
                "notes": [
                    "The gallery contains every item once, in one of the two modalities at random. Own and cross: "
                    f"NDCG@{k} if "
                    "the item is in the gallery in the modality of the query (which is then a noisy copy), or in the "
                    f"other one. Balanced: their mean. Share: fraction of the query's modality among the first {k} "
                    "results, divided by its fraction of the gallery; 1 means no bias towards the query's modality."
                ],
                "heads": ["Pair", "Balanced", "Own", "Cross", "Share"],
                "rows": _rows(
                    found,
                    ("mixed_balanced", "mixed_own", "mixed_cross", "mixed_share"),
                    with_mean=len(pairs) > 1,
                ),
            },
        ],
        "protocol": plain_rows(
            {
                "space": found["space"],
                "data": {key: data[key] for key in ("name", "fingerprint", "items")},
                **results["protocol"],
            }
        ),
        "environment": plain_rows(results["environment"]),
        "reproduce": results["reproduce"],
    }


def _direction_bars(pairs: Mapping[str, Any]) -> Any:
    rows = []
    for pair in pairs.values():
        for query, answer, side in _sides(pair):
            rows.append((f"{query} → {answer}", read_estimate(pair["metrics"][f"ndcg_{side}"])))
    return labeled_bars("directions", "NDCG by direction", _FORMATS["percent"], rows[:_BARS])


def _pair_bars(pairs: Mapping[str, Any]) -> Any:
    rows = [(name, read_estimate(pair["metrics"]["neighbor_agreement"])) for name, pair in pairs.items()]
    return labeled_bars("neighbors", "Common neighbors", _FORMATS["percent"], rows[:_BARS])


def _direction_rows(pair: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    rows = []
    for query, answer, side in _sides(pair):
        cells = [_cell("percent", pair["metrics"][f"{name}_{side}"]) for name in ("recall@1", "ndcg")]
        if side == "forward":
            p = p_value(number(pair["p_holm"]))
            cells += [_cell("points", pair["metrics"]["asymmetry"]), (p.removeprefix("p = ").removeprefix("p "), "")]
        else:
            cells += [("", ""), ("", "")]
        rows.append((f"{query} -> {answer}", cells))
    return rows


def _sides(pair: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    first, second = pair["first"], pair["second"]
    return [(first, second, "forward"), (second, first, "backward")]


def _rows(
    found: Mapping[str, Any], names: Sequence[str], *, with_mean: bool
) -> list[tuple[str, list[tuple[str, str]]]]:
    units = {name: found["metrics"][name]["unit"] for name in names}
    rows = [
        (label, [_cell(units[name], pair["metrics"][name]) for name in names]) for label, pair in found["pairs"].items()
    ]
    if with_mean:
        rows.append(("mean over pairs", [_cell(units[name], found["overall"][name]) for name in names]))
    return rows


def _cell(unit: str, value: Mapping[str, Any]) -> tuple[str, str]:
    fmt, estimate = _FORMATS[unit], read_estimate(value)
    if unit == "points":
        return fmt.number(estimate.mean), fmt.interval(estimate.low, estimate.high)
    return fmt.with_unit(estimate.mean), fmt.interval_with_unit(estimate.low, estimate.high)


def _chance(pair: Mapping[str, Any], name: str) -> str:
    value = number(pair["chance"][name])
    return NumberFormat(percent=True, decimals=2 if value < 0.01 else 1).with_unit(value)
