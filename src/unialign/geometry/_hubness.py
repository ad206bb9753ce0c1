"""Measure hubness, the concentration of nearest neighbors on few gallery rows.

Shapes: `Q` queries, `G` gallery rows, `W` nearest rows per query; `q` queries and `c` gallery rows of one tile.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unialign._checks import check_integer
from unialign.errors import ConfigError
from unialign.ops import TIE_TOLERANCE, UnitRows, query_and_gallery, rectangle, top_k

# Number of neighbors retrieved beyond the k-th; if all of them tie with the k-th, a second pass finds the other tied
# rows.
_SPARE = 8


@dataclass(frozen=True, eq=False, repr=False)
class HubnessResult:
    """Result of `hubness`.

    Attributes:
        counts: (G,) float64 counts N_k, the number of queries with the row among their k nearest. Rows that tie for the
            last ranks of a query share these ranks, so counts may be fractional; their sum is Q k.
        k: number of neighbors per query.
        queries: number of queries, Q.
        skewness: mean of (N_k - mean)^3 divided by the cubed standard deviation; 0 if all counts are equal.
        antihub_fraction: fraction of rows that are not among the k nearest of any query.
        largest: the largest count.
        largest_row: row with the largest count.
    """

    counts: Tensor
    k: int
    queries: int
    skewness: float
    antihub_fraction: float
    largest: float
    largest_row: int

    def __repr__(self) -> str:
        return (
            f"HubnessResult(k={self.k}, queries={self.queries}, gallery={len(self.counts)}, "
            f"skewness={self.skewness:.3g} (by chance {self.chance_skewness:.3g}), "
            f"antihub_fraction={self.antihub_fraction:.3g} (by chance {self.chance_antihub_fraction:.3g}), "
            f"largest={self.largest:.4g} at row {self.largest_row})"
        )

    @property
    def chance_skewness(self) -> float:
        """Skewness expected for random neighbors, the skewness of a binomial count; 0 if k is the gallery size."""
        p = self.k / len(self.counts)
        return (1 - 2 * p) / math.sqrt(self.queries * p * (1 - p)) if p < 1 else 0.0

    @property
    def chance_antihub_fraction(self) -> float:
        """Expected fraction of antihubs for random neighbors."""
        return float((1 - self.k / len(self.counts)) ** self.queries)


@torch.no_grad()
def hubness(queries: Any, gallery: Any, *, k: int = 10) -> HubnessResult:
    """Count how often each gallery row is one of a query's k nearest by cosine (Radovanović et al., JMLR 2010).

    Skewness well above `chance_skewness` indicates hubs: some rows are neighbors of many queries, others are neighbors
    of none. The skewness grows with the dimension, and with a modality gap.

    Args:
        queries, gallery: floating (Q, D) and (G, D) tensors or arrays; rows are L2-normalized here, in float64.
        k: number of neighbors per query, from 1 to the number of gallery rows.

    Returns:
        See `HubnessResult`. Memory is O(Q (D + k) + G) in addition to the inputs; see `unialign.metrics.knn`.

    Raises:
        ShapeError, NonFiniteError: see `unialign.geometry.modality_gap`.
        ConfigError: k out of range.
    """
    check_integer("k", k, low=1)
    unit_queries, unit_gallery = query_and_gallery(queries, gallery)
    if k > len(unit_gallery):
        raise ConfigError(f"k is {k}, but the gallery has only {len(unit_gallery)} rows; choose a smaller k")

    counts_G = _occurrences(unit_queries, unit_gallery, k)
    centered_G = counts_G - counts_G.mean()
    deviation = float(centered_G.square().mean().sqrt())
    # Fractional counts have rounding errors, which must not be treated as variance.
    spread = deviation > 1e-9 * max(1.0, float(counts_G.mean()))
    return HubnessResult(
        counts=counts_G,
        k=k,
        queries=len(unit_queries),
        skewness=float((centered_G / deviation).pow(3).mean()) if spread else 0.0,
        antihub_fraction=float((counts_G == 0).double().mean()),
        largest=float(counts_G.max()),
        largest_row=int(counts_G.argmax()),
    )


def _occurrences(queries: UnitRows, gallery: UnitRows, k: int) -> Tensor:
    retrieved = min(len(gallery), k + _SPARE)
    scores_QW, rows_QW = top_k(queries, gallery, retrieved, tolerance=TIE_TOLERANCE, most=len(queries))
    last_Q1 = scores_QW.sort(dim=1, descending=True).values[:, k - 1 : k]
    # Share ranks between ties. If ties were sorted by index, the first of several equal rows would be a hub, and the
    # others would be antihubs.
    above_QW = scores_QW > last_Q1 + TIE_TOLERANCE
    tied_QW = (scores_QW >= last_Q1 - TIE_TOLERANCE) & ~above_QW
    places_Q = (k - above_QW.sum(1)).double()
    all_here_Q = (scores_QW.amin(1, keepdim=True) < last_Q1 - TIE_TOLERANCE).flatten() | (retrieved == len(gallery))
    fraction_Q = torch.where(all_here_Q, places_Q / tied_QW.sum(1), 0.0)
    # Use the CPU, since atomic additions on an accelerator are nondeterministic.
    votes_QW = (above_QW + fraction_Q[:, None] * tied_QW).cpu()
    counts_G = torch.zeros(len(gallery), dtype=torch.float64)
    counts_G.index_add_(0, rows_QW.cpu().flatten(), votes_QW.flatten())
    counts_G = counts_G.to(scores_QW.device)

    beyond_n = (~all_here_Q).nonzero().flatten()
    tied_n = torch.zeros(len(beyond_n), dtype=torch.float64, device=beyond_n.device)
    for rows, _, tied_qc in _ties(queries, gallery, beyond_n, last_Q1):
        tied_n[rows] += tied_qc.sum(1)
    for rows, columns, tied_qc in _ties(queries, gallery, beyond_n, last_Q1):
        counts_G[columns] += (places_Q[beyond_n] / tied_n)[rows] @ tied_qc
    return counts_G


def _ties(
    queries: UnitRows, gallery: UnitRows, query_n: Tensor, last_Q1: Tensor
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield (q, c) tiles that are 1 where a gallery row ties with the k-th neighbor of a query."""
    for rows, columns in rectangle(len(query_n), len(gallery)):
        query_q = query_n[rows]
        scores_qc = queries.exact(query_q) @ gallery.exact(columns).mT
        yield rows, columns, ((scores_qc - last_Q1[query_q]).abs() <= TIE_TOLERANCE).double()
