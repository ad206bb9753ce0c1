"""Result of the omni protocol.

Shapes: `N` items.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unialign._html import html_table
from unialign._plain_text import count, join_words, percent, table_lines
from unialign.metrics import Interval

# Name -> label, unit and description. `forward` is the direction from the first to the second modality of a pair.
OMNI_METRICS: dict[str, tuple[str, str, str]] = {
    "recall@1_forward": ("R@1, forward", "percent", "queries of the first modality whose item ranks first"),
    "recall@1_backward": ("R@1, backward", "percent", "queries of the second modality whose item ranks first"),
    "ndcg_forward": ("NDCG, forward", "percent", "NDCG@k for queries of the first modality"),
    "ndcg_backward": ("NDCG, backward", "percent", "NDCG@k for queries of the second modality"),
    "asymmetry_recall@1": (
        "R@1, forward - backward",
        "points",
        "difference between the two directions, paired by item",
    ),
    "asymmetry": ("NDCG, forward - backward", "points", "difference between the two directions, paired by item"),
    "neighbor_agreement": (
        "Common neighbors",
        "percent",
        "fraction of the k nearest items that both modalities have in common",
    ),
    "rank_correlation": (
        "Rank correlation",
        "number",
        "Spearman correlation of the cosines of an item to all others in both modalities",
    ),
    "mixed_balanced": ("Mixed, balanced", "percent", "mean of `own` and `cross`"),
    "mixed_own": ("Mixed, own", "percent", "NDCG in a mixed gallery that has the item in the modality of the query"),
    "mixed_cross": ("Mixed, cross", "percent", "NDCG in a mixed gallery that has the item in the other modality"),
    "mixed_share": (
        "Mixed, share",
        "number",
        "frequency of the query's modality among the first k results, relative to the gallery",
    ),
    "gap": ("Gap", "number", "distance between the means of the two modalities, 0 to 2"),
    "gap_debiased": ("Gap, debiased", "number", "distance between the means, corrected for sampling noise, 0 to 2"),
}
# Unit -> factor, decimals and sign of a number in a table.
_UNITS = {"percent": (100, 1, " %"), "points": (100, 1, ""), "number": (1, 3, "")}
_RANGES = {"percent": (0.0, 1.0), "points": (-1.0, 1.0), "number": (0.0, math.inf)}
OMNI_RANGES = {name: _RANGES[unit] for name, (_, unit, _) in OMNI_METRICS.items()}
OMNI_RANGES |= {"rank_correlation": (-1.0, 1.0), "gap": (0.0, 2.0), "gap_debiased": (0.0, 2.0)}


@dataclass(frozen=True)
class OmniPair:
    """Measurements of a pair of modalities.

    Attributes:
        first, second: the modalities; `forward` is the direction first -> second.
        items: number of items in the pool.
        metrics: name -> estimate with its 95 % interval.
        p: p-value of the asymmetry of NDCG, from the paired bootstrap.
        p_holm: p-value, corrected for the number of pairs.
        chance: name -> expected value for rows without any relation, for R@1, common neighbors and rank correlation.
    """

    first: str
    second: str
    items: int
    metrics: Mapping[str, Interval]
    p: float
    p_holm: float
    chance: Mapping[str, float]

    @property
    def name(self) -> str:
        return f"{self.first}-{self.second}"


@dataclass(frozen=True, repr=False)
class OmniResult:
    """Result of `omni`.

    Attributes:
        pairs: pair name, such as `image-text` -> measurements.
        overall: name -> mean over pairs, with its 95 % interval; not for asymmetries, whose signs are arbitrary.
        items: number N of items.
        pool: `shared` or `pair`.
        k: cut-off of NDCG, and number of neighbors.
    """

    pairs: dict[str, OmniPair]
    overall: dict[str, Interval]
    items: int
    pool: str
    k: int

    def answer(self) -> str:
        """Return the main findings in a few sentences."""
        uneven = [pair for pair in self.pairs.values() if pair.p_holm < 0.05]
        ndcg = (self.overall["ndcg_forward"].estimate + self.overall["ndcg_backward"].estimate) / 2
        chance = sum(pair.chance["neighbor_agreement"] for pair in self.pairs.values()) / len(self.pairs)
        sentences = [
            f"NDCG@{self.k} is {percent(ndcg)} on average over directions, and both modalities of an item have "
            f"{percent(self.overall['neighbor_agreement'].estimate)} of their {self.k} nearest items in common "
            f"({percent(chance)} for unrelated rows)."
        ]
        if not uneven:
            sentences.append("No pair differs significantly between its two directions.")
        else:
            words = []
            for pair in uneven:
                difference = pair.metrics["asymmetry"].estimate
                better = (pair.first, pair.second) if difference > 0 else (pair.second, pair.first)
                words.append(f"{better[0]} -> {better[1]} (by {100 * abs(difference):.1f} points)")
            sentences.append(f"Significantly better than the reverse direction: {join_words(words)}.")
        return " ".join(sentences)

    def text(self) -> str:
        """Return the measurements as tables for a terminal."""
        sizes = sorted({pair.items for pair in self.pairs.values()})
        pool = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
        which = "that have every modality" if self.pool == "shared" else "that have both modalities of a pair"
        lines = [self.answer(), "", f"{pool} of {count(self.items, 'item')}, those {which}; k = {self.k}"]
        for names in _BLOCKS:
            head = ("pair", *(OMNI_METRICS[name][0] for name in names))
            body = [
                (f"{pair.first} -> {pair.second}", *(written(name, pair.metrics[name]) for name in names))
                for pair in self.pairs.values()
            ]
            lines += ["", *table_lines(head, body)]
        lines += ["", "Intervals are 95 % bootstrap intervals. `forward` is the direction of the arrow."]
        lines += [f"{label}: {description}" for label, _, description in OMNI_METRICS.values()]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return all measurements as JSON values."""
        return {
            "items": self.items,
            "pool": self.pool,
            "k": self.k,
            "answer": self.answer(),
            "metrics": {
                name: {"label": label, "unit": unit, "description": description}
                for name, (label, unit, description) in OMNI_METRICS.items()
            },
            "overall": {name: _plain(interval) for name, interval in self.overall.items()},
            "pairs": {
                name: {
                    "first": pair.first,
                    "second": pair.second,
                    "items": pair.items,
                    "p": pair.p,
                    "p_holm": pair.p_holm,
                    "chance": dict(pair.chance),
                    "metrics": {metric: _plain(interval) for metric, interval in pair.metrics.items()},
                }
                for name, pair in self.pairs.items()
            },
        }

    def __repr__(self) -> str:
        return f"OmniResult(pairs={len(self.pairs)}, items={self.items}, pool={self.pool!r}, k={self.k})"

    def _repr_html_(self) -> str:
        names = [name for block in _BLOCKS for name in block]
        body = [
            [f"{pair.first} → {pair.second}", *(written(name, pair.metrics[name]) for name in names)]
            for pair in self.pairs.values()
        ]
        return html_table(body, head=["", *(OMNI_METRICS[name][0] for name in names)], caption=f"{self.items} items")


_BLOCKS = (
    ("recall@1_forward", "recall@1_backward", "ndcg_forward", "ndcg_backward", "asymmetry"),
    ("neighbor_agreement", "rank_correlation", "gap", "gap_debiased"),
    ("mixed_balanced", "mixed_own", "mixed_cross", "mixed_share"),
)


def written(name: str, interval: Interval) -> str:
    scale, digits, sign = _UNITS[OMNI_METRICS[name][1]]
    value, low, high = (f"{scale * number:.{digits}f}" for number in (interval.estimate, interval.low, interval.high))
    return f"{value}{sign} [{low}, {high}]"


def _plain(interval: Interval) -> dict[str, float]:
    return {"mean": interval.estimate, "low": interval.low, "high": interval.high}
