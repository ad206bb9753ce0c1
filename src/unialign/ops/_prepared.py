"""Candidates of an exact search among trusted rows: float32 products with bounds of their error.

A gallery that was validated when it was stored is read once per search, without a copy and without another validation.
The error of an inner product of length D is at most (D + 2) u |x| |y|, where u is the unit roundoff: D u for the sum
(Higham, "Accuracy and stability of numerical algorithms", 2nd ed., eq. 3.5), and the rest for the rounded query. A row
is a candidate if its score plus its error bound is at least the k-th largest score minus its error bound. The caller
scores the candidates again in float64, so that the result is the same as in float64.

Shapes: `Q` queries, `G` gallery rows, `D` dimension, `k` neighbors, `C` candidates; in a tile, `c` gallery rows.
"""

import warnings
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign.ops._search import product_dtype

# Scores of rows that are left out are lower.
_LOWEST = torch.finfo(torch.float32).min
# Number of scores of a tile, so that they stay in the cache.
_ENTRIES, _FEWEST, _MOST = 2**18, 2048, 2**17


def trusted_rows(rows: NDArray[np.float32]) -> Tensor:
    """Return a view of validated rows, which may be a read-only memory map."""
    with warnings.catch_warnings():
        # This module does not write to them.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(rows)


def rounded_queries(queries_QD: Tensor) -> Tensor:
    """Round float64 queries to float32; keep them if the precision of float32 products was lowered in torch."""
    return queries_QD.to(product_dtype(queries_QD.device, queries_QD.shape[1]))


def row_products(x_QD: Tensor, rows_cD: Tensor) -> Tensor:
    """(Q, c) inner products of rounded queries with float32 rows."""
    y_cD = rows_cD.to(x_QD.dtype)
    if len(x_QD) == 1:
        return torch.mv(y_cD, x_QD[0], out=x_QD.new_empty(len(y_cD)))[None]
    # Writing to `out` also disables autocast.
    return torch.mm(x_QD, y_cD.mT, out=x_QD.new_empty(len(x_QD), len(y_cD)))


def product_error(dim: int) -> float:
    """Error bound of `row_products` for unit queries and rows; it grows with the product of their norms."""
    return (dim + 4) * torch.finfo(torch.float32).eps / 2


def score_tiles(items: int, queries: int) -> Iterator[slice]:
    """Yield ranges of items."""
    size = min(_MOST, max(_FEWEST, _ENTRIES // max(1, queries)))
    for start in range(0, items, size):
        yield slice(start, min(items, start + size))


class Candidates:
    """Rows that may be among the k best of each query.

    Attributes:
        limit_Q: largest known lower bound of the k-th best score.
    """

    def __init__(self, queries: int, k: int) -> None:
        self.k = k
        self.limit_Q = torch.full((queries,), -torch.inf)
        self._lower_Qk = torch.full((queries, k), -torch.inf)
        # Whether a query has fewer than k rows.
        self._open = queries > 0
        self._found: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, scores_Qc: Tensor, error_c: Tensor, rows_c: Tensor) -> None:
        """Add a tile; scores of rows that are left out are -inf.

        Args:
            error_c: error bounds.
            rows_c: int64 numbers of the rows, unique in all tiles.
        """
        upper_Qc = scores_Qc + error_c
        first = self._open
        if first and upper_Qc.shape[1] > self.k:
            lower_Qk = (scores_Qc - error_c).topk(self.k, dim=1).values
            self._raise_limit(torch.arange(len(lower_Qk)), lower_Qk)
        q_C, c_C = self._above(upper_Qc)
        if not len(q_C):
            return
        upper_C = upper_Qc[q_C, c_C]
        self._found.append((q_C, rows_c[c_C], upper_C))
        if first and upper_Qc.shape[1] > self.k:
            return
        # Rows of the tile per query, padded to the same number.
        touched_n, number_C, counts_n = torch.unique(q_C, return_inverse=True, return_counts=True)
        starts_n = counts_n.cumsum(0) - counts_n
        lower_nw = torch.full((len(touched_n), int(counts_n.max())), -torch.inf)
        lower_nw[number_C, torch.arange(len(q_C)) - starts_n[number_C]] = (upper_C - 2 * error_c[c_C]).float()
        self._raise_limit(touched_n, lower_nw)

    def take(self) -> tuple[Tensor, Tensor]:
        """(C,) queries and (C,) rows of the candidates."""
        if not self._found:
            return torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
        q_C, rows_C, upper_C = (torch.cat(column) for column in zip(*self._found, strict=True))
        keep_C = upper_C >= self.limit_Q[q_C]
        return q_C[keep_C], rows_C[keep_C]

    def _above(self, upper_Qc: Tensor) -> tuple[Tensor, Tensor]:
        limit_Q = self.limit_Q.clamp(min=_LOWEST)
        if len(upper_Qc) == 1:
            c_C = (upper_Qc[0] >= limit_Q).nonzero()[:, 0]
            return torch.zeros_like(c_C), c_C
        # Most rows of the matrix have no candidate once the limit is known.
        near_n = (upper_Qc.amax(1) >= limit_Q).nonzero()[:, 0]
        upper_nc = upper_Qc[near_n]
        n_C, c_C = (upper_nc >= limit_Q[near_n, None]).nonzero(as_tuple=True)
        return near_n[n_C], c_C

    def _raise_limit(self, queries_n: Tensor, lower_nw: Tensor) -> None:
        joined_nw = torch.cat([self._lower_Qk[queries_n], lower_nw.float()], 1)
        self._lower_Qk[queries_n] = joined_nw.topk(self.k, dim=1).values
        self.limit_Q = self._lower_Qk[:, -1].clone()
        self._open = self._open and bool(torch.isneginf(self.limit_Q).any())
