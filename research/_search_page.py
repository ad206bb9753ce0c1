"""Build the page of the study `search` from the content of its results.json."""

import math
from collections.abc import Mapping
from typing import Any

from research._figures import format_interval, minus
from research._read import Results, completed, label, run_metric
from research._search_measures import FUSIONS, ITEM_METHODS, MASKS, METHODS, SCORES
from research.pages import Section, Table
from unialign.report import DASH

__all__ = ["answer", "page"]

_CORRECTIONS = {"none": "none", "center": "center", "coral": "coral", "center_csls": "center_csls", "auto": "auto"}
_INTERVAL = "Mean over seeds [95 % interval over groups of held-out items and seeds]."
# The largest accepted loss of `auto` against plain cosine.
_MOST_LOSS = 0.005


def page(results: Results) -> list[Section]:
    return [
        Section("answer", "Answer", answer(results)),
        Section("corrections", "Corrections in a mixed gallery", _corrections(results)),
        Section("halves", "Own and cross half", [_halves(results)]),
        Section("sizes", "Number of calibration items", [_sizes(results)]),
        Section("items", "Items with missing modalities", [_items(results)]),
        Section("fusion", "Queries of several modalities", [_fusion(results)]),
    ]


def answer(results: Results) -> list[str]:
    arms = completed(results)
    gains = {arm: _mean(results, arm, "search/auto/gain/balanced") for arm in arms}
    if not gains:
        return ["No run is complete."]
    worst, best = min(gains, key=lambda arm: gains[arm]), max(gains, key=lambda arm: gains[arm])
    met = "is met" if gains[worst] >= -_MOST_LOSS else "is not met"
    return [
        f"The correction that `auto` chooses changes the balanced NDCG@10 by {_points(gains[worst])} "
        f"({label(results, worst)}) to {_points(gains[best])} points ({label(results, best)}).",
        f"The goal, a score at most 0.5 points below that of plain cosine, {met} on these {len(arms)} spaces.",
    ]


def _corrections(results: Results) -> list[Table]:
    rows, shares = [], []
    for arm in completed(results):
        gains = [_cell(results, arm, f"search/{method}/gain/balanced", sign=True) for method in (*METHODS[1:], "auto")]
        start = [label(results, arm), f"{_mean(results, arm, 'search/gap'):.2f}"]
        rows.append([*start, _cell(results, arm, "search/none/balanced"), *gains, _chosen(results, arm)])
        own = [f"{_mean(results, arm, f'search/{method}/share'):.2f}" for method in _CORRECTIONS]
        labels = [_cell(results, arm, f"search/{m}/gain/label_precision", sign=True) for m in (*METHODS[1:], "auto")]
        shares.append([label(results, arm), *own, *labels])
    head = ["space", "gap", "none: balanced NDCG@10, %", *(f"{m}: gain" for m in (*METHODS[1:], "auto")), "auto chose"]
    return [
        Table(
            head,
            rows,
            "The gallery contains each held-out item once, in a random modality; each item is a query in each of its "
            "modalities. The score is the mean of the halves in which the item is in the gallery in the modality of "
            f"the query (its own; the query is a noisy copy) or in another (cross). Gains are in points. {_INTERVAL} "
            "The gap is the largest debiased gap of two modalities.",
        ),
        Table(
            [
                "space",
                *(f"{m}: share" for m in _CORRECTIONS),
                *(f"{m}: label P@10, gain" for m in (*METHODS[1:], "auto")),
            ],
            shares,
            "Share of the query's own modality among the first ten, over its fair share (1 is fair), and the change of "
            "the label precision of the other rows among the first ten, in points.",
        ),
    ]


def _halves(results: Results) -> Table:
    rows = [
        [label(results, arm), *(_cell(results, arm, f"search/{m}/{h}") for m in _CORRECTIONS for h in ("own", "cross"))]
        for arm in completed(results)
    ]
    return Table(
        ["space", *(f"{method}: {half}" for method in _CORRECTIONS for half in ("own", "cross"))],
        rows,
        f"NDCG@10, %. {_INTERVAL}",
    )


def _sizes(results: Results) -> Table:
    sizes = sorted({int(n.split("/")[-1]) for a in completed(results) for n in results["summary"][a] if "/size/" in n})
    arms = [arm for arm in completed(results) if f"search/size/{sizes[0]}" in results["summary"][arm]] if sizes else []
    rows = [
        [label(results, arm), *(_cell(results, arm, f"search/size/{size}", sign=True) for size in sizes)]
        for arm in arms
    ]
    return Table(
        ["space", *(f"{size} items" for size in sizes)],
        rows,
        f"Gain of the balanced NDCG@10 of `auto` over plain cosine, in points, by the number of items of the "
        f"calibration. {_INTERVAL}",
    )


def _items(results: Results) -> Table:
    rows = []
    for arm in completed(results):
        for method in ITEM_METHODS:
            for score in SCORES:
                names = [f"search/items/{method}/{mask}/{score}" for mask in MASKS]
                if all(name in results["summary"][arm] for name in names):
                    cells = [_cell(results, arm, name) for name in names]
                    rows.append([label(results, arm), method, score, *cells])
    return Table(
        ["space", "correction", "score of an item", *(f"{mask} % missing" for mask in MASKS)],
        rows,
        "R@10, %, of queries of one modality among items with random subsets of the others. `any` and `best` are "
        "targets of `Index.search`; mean and sum are those of the cosines of the rows that an item has, which an index "
        f"does not offer. {_INTERVAL}",
    )


def _fusion(results: Results) -> Table:
    rows = [
        [label(results, arm), *(_cell(results, arm, f"search/fuse/{fusion}") for fusion in FUSIONS)]
        for arm in completed(results)
        if "search/fuse/mean" in results["summary"][arm]
    ]
    return Table(
        ["space", *(f"`{fusion}`" if fusion != "single" else "one modality" for fusion in FUSIONS)],
        rows,
        "R@10, %, of each modality, for queries of all other modalities of an item with the correction `auto`, by "
        f"the option `fuse`, and the mean over queries of one modality. {_INTERVAL}",
    )


def _chosen(results: Results, arm: str) -> str:
    counts = {method: sum(run_metric(results, arm, f"search/chosen/{method}")) for method in METHODS}
    return ", ".join(f"{method} ({count:.0f})" for method, count in counts.items() if count)


def _mean(results: Results, arm: str, name: str) -> float:
    values = run_metric(results, arm, name)
    return math.fsum(values) / len(values) if values else math.nan


def _cell(results: Results, arm: str, name: str, *, sign: bool = False) -> str:
    found: Mapping[str, Any] | None = results["summary"][arm].get(name)
    if found is None or found.get("mean") is None:
        return DASH
    text = format_interval(found, scale=100, decimals=1)
    return minus(f"+{text}") if sign and found["mean"] >= 0 else text


def _points(gain: float) -> str:
    return minus(f"{100 * gain:+.1f}")
