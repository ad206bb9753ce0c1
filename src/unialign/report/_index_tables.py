"""Tables of a diagnosis about mixed galleries, cut-offs, training batches and truncation."""

from collections.abc import Mapping, Sequence
from typing import Any

from unialign.report._format import p_value
from unialign.report._table_cells import Cell, column, table_rows

# Heading, note, name of the first column, other columns, and rows.
Section = dict[str, Any]

_MIXED = (
    "A mixed gallery contains each item once, in a random modality of the pair. Own modality: frequency of the query's "
    "modality among the first 10 results over its frequency in the gallery; 1 means no bias, 2 that all results have "
    "the modality of the query. NDCG@10: mean of queries whose positive has the modality of the query (a noisy copy "
    "is the query) and of those whose positive has the other. Centered: after subtracting each modality's mean. "
    "Distribution gap: maximum mean discrepancy of the centered unit rows, with p-value. Covariance mismatch: 0 for "
    "equal covariances, 1 for orthogonal ones. Deviation: standard deviation of the cosines of random pairs. R@1 "
    "difference: first minus second direction."
)
_CUTOFFS = (
    "Cosine that the given fraction of the random pairs exceeds, with its interval, and the fraction of true pairs "
    "that exceed it. A rate is left out if fewer than 20 random pairs of the sample exceed its cut-off."
)
_BATCH = (
    "Expected numbers of negatives of a query in a random batch of {batch:,} items, by cosines of standardized "
    "features. Copies: equal or nearly equal rows with other ids. Close: other rows that are more similar than chance "
    "explains, and their smallest cosine. Above: rows with at least this cosine. Largest cosine: median and middle 90 "
    "% over queries. Removed: fraction of the weight of all negatives that similarity_scale removes, and the mean "
    "weight left to close negatives. Scales: those at which close negatives keep a half and a twentieth of their "
    "weight. Shared: fraction of the close negatives that are close in another modality too. "
    "Same label: fraction of them that have the label of the query. Chance: the same fractions of all negatives."
)
_DIMS = (
    "R@1 and NDCG@10 with fewer dims, as a mean over all directions. First: the first coordinates. Principal: the "
    "principal directions of the rows of all modalities, computed from items that are not measured. Loss: "
    "difference from all dims, paired."
)


def index_sections(numbers: Mapping[str, Any]) -> list[Section]:
    pairs = {name: p for name, p in numbers["pairs"].items() if "mixed_pool" in p}
    found = []
    if pairs:
        heads = ["Pair", "Own modality", "Own modality, centered", "NDCG@10", "NDCG@10, centered", "Distribution gap",
                 "Covariance mismatch", "Deviation", "R@1 difference"]  # fmt: skip
        most = max(p["mixed_pool"]["items"] for p in pairs.values())
        note = f"{_MIXED} Measured on up to {most:,} items.{_whole_space(numbers)}"
        found.append(_section("mixed", "Mixed gallery and distributions", note, heads, table_rows(pairs, _mixed)))
    if any(p["cutoffs"] for p in pairs.values()):
        rates = list(dict.fromkeys(cutoff["rate"] for p in pairs.values() for cutoff in p["cutoffs"]))
        heads = ["Pair"]
        for rate in rates:
            heads += [f"Cosine for {_rate(rate)}", f"True pairs above, {_rate(rate)}"]
        rows = table_rows(pairs, lambda values: _cutoffs(values, rates))
        found.append(_section("cutoffs", "Cut-offs by false-positive rate", _CUTOFFS, heads, rows))
    batch = {name: m["negatives"] for name, m in numbers["modalities"].items() if "negatives" in m}
    if batch:
        first = next(iter(batch.values()))
        heads = ["Modality", "Negatives", "Copies", "Close", "Close, cosine"]
        heads += [f"Above {found['cosine']:g}" for found in first["above"]] + ["Largest cosine"]
        heads += [f"Removed, {found['similarity_scale']:g}" for found in first["scales"]]
        heads += ["Scales", "Shared", "Same label"]
        note = _BATCH.format(batch=first["batch_size"])
        found.append(_section("batch", "Similar negatives in a training batch", note, heads, table_rows(batch, _batch)))
    if "truncation" in numbers:
        heads = ["Kept dims", "R@1", "R@1, loss", "NDCG@10", "NDCG@10, loss"]
        rows = table_rows(_dims(numbers["truncation"]), _truncated)
        note = f"{_DIMS} {numbers['truncation']['candidates']:,} candidates."
        found.append(_section("dims", "Fewer dims", note, heads, rows))
    return found


def _section(id: str, title: str, note: str, heads: list[str], rows: Any) -> Section:
    return {"id": id, "title": title, "note": note, "heads": heads, "rows": rows}


def _whole_space(numbers: Mapping[str, Any]) -> str:
    words = ""
    if "mixed_pool" in numbers:
        share = numbers["mixed_pool"]["modality_share"]
        words += (
            f" In a gallery of all modalities, own modality is {share['mean']:.2f} ({share['low']:.2f} to "
            f"{share['high']:.2f})."
        )
    if numbers.get("shared_component"):
        shared = numbers["shared_component"]["mean"]
        words += f" Component shared by all rows: {100 * shared:.1f} % of their squared length."
    within = [f"{value['mean']:.3f} within {name}" for name, value in numbers.get("deviations", {}).items()]
    return words + (f" Deviations: {', '.join(within)}." if within else "")


def _rate(rate: float) -> str:
    return f"{100 * rate:g} %"


def _mixed(rows: Sequence[Mapping[str, Any]]) -> list[list[Cell]]:
    pools, centered = [p["mixed_pool"] for p in rows], [p["centered_mixed_pool"] for p in rows]
    return [
        column([pool["modality_share"] for pool in pools]),
        column([pool["modality_share"] for pool in centered]),
        column([pool["ndcg@10"] for pool in pools], "percent"),
        column([pool["ndcg@10"] for pool in centered], "percent"),
        _with_p(rows),
        column([p["covariance_mismatch"] for p in rows], "percent"),
        column([p["random_pair_deviation"] for p in rows]),
        column([p["asymmetry"] for p in rows], "percent"),
    ]


def _with_p(rows: Sequence[Mapping[str, Any]]) -> list[Cell]:
    gaps = column([p["distribution_gap"] for p in rows])
    return [
        (value, f"{small}, {p_value(p['distribution_gap_p'])}") for (value, small), p in zip(gaps, rows, strict=True)
    ]


def _cutoffs(rows: Sequence[Mapping[str, Any]], rates: Sequence[float]) -> list[list[Cell]]:
    columns = []
    for rate in rates:
        found: list[Mapping[str, Any]] = [
            next((cutoff for cutoff in p["cutoffs"] if cutoff["rate"] == rate), {}) for p in rows
        ]
        columns += [
            column([cutoff.get("cosine") for cutoff in found]),
            column([cutoff.get("true_fraction") for cutoff in found], "percent"),
        ]
    return columns


def _batch(rows: Sequence[Mapping[str, Any]]) -> list[list[Cell]]:
    largest = [[found["cosine"] for found in n["largest_cosine"]] for n in rows]
    return [
        column([n["count"] for n in rows]),
        column([n["copies"] for n in rows]),
        column([n["close"] for n in rows]),
        column([n["close_cosine"] for n in rows]),
        *(column([n["above"][i]["count"] for n in rows]) for i in range(len(rows[0]["above"]))),
        column([{"low": low, "mean": median, "high": high} for low, median, high in largest]),
        *(_removed([n["scales"][i] for n in rows]) for i in range(len(rows[0]["scales"]))),
        [(_scales(n["scale_range"]), "") for n in rows],
        _with_chance(rows, "close_in_other_modalities", "close_in_other_modalities_chance"),
        _with_chance(rows, "close_same_label", "same_label"),
    ]


def _scales(found: Mapping[str, float] | None) -> str:
    return "–" if found is None else f"{found['low']:.1f} to {found['high']:.1f}"


def _removed(scales: Sequence[Mapping[str, Any]]) -> list[Cell]:
    removed, left = (
        column([s["removed"] for s in scales], "percent"),
        column([s["close_weight"] for s in scales], "percent"),
    )
    return [(value, f"close: {weight} left") for (value, _), (weight, _) in zip(removed, left, strict=True)]


def _with_chance(rows: Sequence[Mapping[str, Any]], key: str, chance: str) -> list[Cell]:
    found, usual = column([n[key] for n in rows], "percent"), column([n[chance] for n in rows], "percent")
    return [(value, f"chance {small}") for (value, _), (small, _) in zip(found, usual, strict=True)]


def _dims(truncation: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {"all": truncation} | {f"{reduced['kind']} {reduced['dim']}": reduced for reduced in truncation["reduced"]}


def _truncated(rows: Sequence[Mapping[str, Any]]) -> list[list[Cell]]:
    keys = ("recall@1", "recall@1_loss", "ndcg@10", "ndcg@10_loss")
    return [column([found.get(key) for found in rows], "percent") for key in keys]
