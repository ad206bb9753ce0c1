"""Format the numbers of a diagnosis as tables, and wrap text for a terminal."""

import textwrap
from collections.abc import Callable, Mapping
from typing import Any

from unialign._plain_text import table_lines
from unialign.diagnostics._format import factor, number, percent, size

_LINE_LENGTH, INDENT = 100, 10


def wrap(words: str, start: str) -> list[str]:
    """Wrap text; numbers are not separated from their percent signs."""
    tied = words.replace(" %", "\u00a0%")
    lines = textwrap.wrap(tied, _LINE_LENGTH, initial_indent=start, subsequent_indent=" " * INDENT)
    return [line.replace("\u00a0", " ") for line in lines]


_TERMS = (
    "Gap: distance between the mean rows of two modalities (0 to 2); debiased: sampling noise subtracted. True pair: "
    "row i of both modalities; random pair: rows of different items. Match from: cosine above which a pair is more "
    "likely to match than not, if matches and other pairs are equally frequent. R@k: fraction of queries with a "
    "correct candidate among the first k; MRR: mean reciprocal rank of the first correct candidate. Effective rank: "
    "number of directions that hold the variance. Hub skewness: high if a few candidates are returned for most queries."
)
_INDEX_TERMS = (
    "Own modality: frequency of the query's modality among the first 10 results over its frequency in a gallery of "
    "both modalities (1: no bias). Distribution gap: distance of the distributions without their means (MMD). Cut-off: "
    "cosine that the given fraction of the random pairs exceeds, with the fraction of true pairs that exceed it."
)
_BATCH_TERMS = (
    "Negatives: expected numbers for a query in a random batch of {batch:,} items. Copies: equal or nearly equal rows. "
    "Close: other rows that are more similar than chance explains, with a cosine of standardized features of at least "
    "`cosine from`. Largest cosine: median over queries. Removed: fraction of the weight of all negatives that "
    "similarity_scale 5 and 10 remove. Scales: those at which close negatives keep a half and a twentieth of their "
    "weight."
)
_DIM_TERMS = "Kept dims: mean over all directions among {candidates:,} candidates."


# Column -> function that returns the content of a cell, given the key and the numbers of its row.
_MODALITY_COLUMNS: dict[str, Callable[[str, Any], str]] = {
    "modality": lambda name, m: name,
    "rows": lambda name, m: f"{m['rows']:,}",
    "dim": lambda name, m: str(m["dim"]),
    "median norm": lambda name, m: size(m["norm"]["median"]) if m["norm"] else "-",
    "mean cosine": lambda name, m: "-" if m["mean_cosine"] is None else _estimate(m["mean_cosine"]),
    "effective rank": lambda name, m: number(m["effective_rank"]),
    "duplicates": lambda name, m: f"{m['duplicate_rows']:,}",
}
_PAIR_COLUMNS: dict[str, Callable[[str, Any], str]] = {
    "pair": lambda name, p: name,
    "items": lambda name, p: f"{p['items']:,}",
    "gap (debiased)": lambda name, p: _estimate(p["modality_gap_debiased"]),
    "gap (raw)": lambda name, p: number(p["modality_gap"]),
    "true-pair cosine": lambda name, p: _estimate(p["true_pair_cosine"]),
    "random-pair cosine": lambda name, p: number(p["random_pair_cosine"]),
    "match from": lambda name, p: number(p["match"]["cosine"]) if p["match"] else "-",
}
_DIRECTION_COLUMNS: dict[str, Callable[[str, Any], str]] = {
    "direction": lambda name, d: name,
    "candidates": lambda name, d: f"{d['queries']:,}",
    "R@1": lambda name, d: _percent_estimate(d["recall@1"]),
    "R@10": lambda name, d: _percent_estimate(d["recall@10"]),
    "MRR": lambda name, d: number(d["mrr"]["mean"]),
    "chance R@1": lambda name, d: percent(d["chance"]["recall@1"]),
    "hub skewness": lambda name, d: number(d["hubness"]["skewness"]),
}
_INDEX_COLUMNS: dict[str, Callable[[str, Any], str]] = {
    "mixed gallery": lambda name, p: name,
    "own modality": lambda name, p: _factor_estimate(p["mixed_pool"]["modality_share"]),
    "centered": lambda name, p: factor(p["centered_mixed_pool"]["modality_share"]["mean"]),
    "NDCG@10": lambda name, p: percent(p["mixed_pool"]["ndcg@10"]["mean"]),
    "distribution gap": lambda name, p: _estimate(p["distribution_gap"]),
    "cut-off 1 %": lambda name, p: _cutoff(p["cutoffs"], 0.01),
    "cut-off 0.1 %": lambda name, p: _cutoff(p["cutoffs"], 0.001),
}
_BATCH_COLUMNS: dict[str, Callable[[str, Any], str]] = {
    "negatives": lambda name, n: name,
    "in a batch": lambda name, n: number(n["count"]),
    "copies": lambda name, n: number(n["copies"]["mean"]),
    "close": lambda name, n: _estimate(n["close"]),
    "cosine from": lambda name, n: number(n["close_cosine"]),
    "largest cosine": lambda name, n: number(n["largest_cosine"][1]["cosine"]),
    "removed, 5": lambda name, n: percent(n["scales"][0]["removed"]["mean"]),
    "removed, 10": lambda name, n: percent(n["scales"][1]["removed"]["mean"]),
    "scales": lambda name, n: _range(n["scale_range"]),
}
_DIM_COLUMNS: dict[str, Callable[[str, Any], str]] = {
    "kept dims": lambda dim, found: dim,
    "R@1, first coordinates": lambda dim, found: _reduced(found, "first"),
    "R@1, principal directions": lambda dim, found: _reduced(found, "principal"),
}


def number_lines(numbers: Mapping[str, Any]) -> list[str]:
    lines = _table(_MODALITY_COLUMNS, numbers["modalities"])
    lines += _table(_PAIR_COLUMNS, {name: p for name, p in numbers["pairs"].items() if "items" in p})
    lines += _table(_DIRECTION_COLUMNS, numbers["directions"])
    index = {name: p for name, p in numbers["pairs"].items() if "mixed_pool" in p}
    lines += _table(_INDEX_COLUMNS, index)
    batch = {name: m["negatives"] for name, m in numbers["modalities"].items() if "negatives" in m}
    lines += _table(_BATCH_COLUMNS, batch)
    lines += _table(_DIM_COLUMNS, by_dim(numbers))
    whole = numbers["sampled"] == numbers["items"]
    sample = "all items" if whole else f"{numbers['sampled']:,} random items"
    note = f"Rows, norms and duplicates: all rows. Other numbers: {sample}, with [95 % bootstrap intervals]. {_TERMS}"
    note += f" {_INDEX_TERMS}" if index else ""
    note += f" {_BATCH_TERMS.format(batch=next(iter(batch.values()))['batch_size'])}" if batch else ""
    note += f" {_DIM_TERMS.format(**numbers['truncation'])}" if "truncation" in numbers else ""
    return lines + textwrap.wrap(note, _LINE_LENGTH)


def _table(columns: Mapping[str, Callable[[str, Any], str]], rows: Mapping[str, Any]) -> list[str]:
    body = [[cell(name, values) for cell in columns.values()] for name, values in rows.items()]
    return [*table_lines(list(columns), body), ""] if body else []


def by_dim(numbers: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return number of dims -> kind -> results, with all dims first."""
    found = numbers.get("truncation")
    if not found:
        return {}
    (dim,) = {m["dim"] for m in numbers["modalities"].values()}
    rows: dict[str, dict[str, Any]] = {f"all {dim}": {"first": found, "principal": found}}
    for reduced in found["reduced"]:
        rows.setdefault(str(reduced["dim"]), {})[reduced["kind"]] = reduced
    return rows


def _reduced(found: Mapping[str, Any], kind: str) -> str:
    return _percent_estimate(found[kind]["recall@1"]) if kind in found else "-"


def _range(value: Mapping[str, float] | None) -> str:
    return "-" if value is None else f"{number(value['low'])} to {number(value['high'])}"


def _cutoff(cutoffs: Any, rate: float) -> str:
    found = [cutoff for cutoff in cutoffs if cutoff["rate"] == rate]
    return f"{number(found[0]['cosine']['mean'])} ({percent(found[0]['true_fraction']['mean'])})" if found else "-"


def _estimate(value: Mapping[str, float]) -> str:
    return f"{number(value['mean'])} [{number(value['low'])}, {number(value['high'])}]"


def _factor_estimate(value: Mapping[str, float]) -> str:
    return f"{factor(value['mean'])} [{factor(value['low'])}, {factor(value['high'])}]"


def _percent_estimate(value: Mapping[str, float]) -> str:
    return f"{percent(value['mean'])} [{100 * value['low']:.1f}, {100 * value['high']:.1f}]"
