"""Positives of each query: gallery rows with the same id, or with a relevance above 0.

Shapes: `Q` queries, `G` gallery rows, `q` queries of one tile.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unialign.batch import as_dense
from unialign.errors import ConfigError, DataError, NonFiniteError, ShapeError
from unialign.metrics._labels import matching_codes
from unialign.ops import row_tiles


@dataclass(frozen=True, eq=False)
class Positives:
    """The positives of a query are the rows with the same code."""

    query_codes_Q: Tensor
    gallery_codes_G: Tensor

    @property
    def gallery(self) -> int:
        return len(self.gallery_codes_G)

    def counts(self) -> Tensor:
        highest = int(torch.maximum(self.query_codes_Q.max(), self.gallery_codes_G.max())) + 1
        return torch.bincount(self.gallery_codes_G, minlength=highest)[self.query_codes_Q]

    def table(self, rows_q: Tensor, device: torch.device) -> tuple[Tensor, None]:
        return self.query_codes_Q[rows_q].to(device)[:, None] == self.gallery_codes_G.to(device), None


class Relevance:
    """Graded relevance: (Q, G) numbers of at least 0, or a function of int64 query rows (q,) that returns (q, G)."""

    def __init__(self, relevance: Any, queries: int, gallery: int) -> None:
        self.gallery = gallery
        self.rows_S = torch.arange(queries)
        self._tile: Callable[[Tensor], Any] = (
            relevance if callable(relevance) else _rows_of(relevance, queries, gallery)
        )
        self._counts = torch.cat(
            [(self._gains(self.rows_S[tile]) > 0).sum(1).cpu() for tile in row_tiles(queries, gallery)]
        )

    def keep(self, rows_S: Tensor) -> "Relevance":
        """Restrict the relevance to the given queries, which are then numbered from 0."""
        self.rows_S, self._counts = self.rows_S[rows_S], self._counts[rows_S]
        return self

    def counts(self) -> Tensor:
        return self._counts

    def table(self, rows_q: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        gain_qG = self._gains(self.rows_S[rows_q]).to(device)
        return gain_qG > 0, gain_qG

    def _gains(self, rows_q: Tensor) -> Tensor:
        shape = (len(rows_q), self.gallery)
        gain_qG = as_dense(self._tile(rows_q), "relevance", f"numbers of shape {shape}")
        if tuple(gain_qG.shape) != shape or gain_qG.is_complex():
            raise ShapeError(
                f"relevance is {gain_qG.dtype} of shape {tuple(gain_qG.shape)}; expected numbers of {shape}"
            )
        gain_qG = gain_qG.detach().to(torch.float64)
        bad_qG = ~((gain_qG >= 0) & (gain_qG < torch.inf))
        if bool(bad_qG.any()):
            i, j = bad_qG.nonzero()[0].tolist()
            raise NonFiniteError(
                f"the relevance of gallery row {j} for query {int(rows_q[i])} is {gain_qG[i, j].item()}; expected a "
                "finite number of at least 0 (0 for rows that are not relevant)"
            )
        return gain_qG


def find_positives(
    queries: int, gallery: int, query_ids: Any, gallery_ids: Any, relevance: Any
) -> tuple[Tensor, Positives | Relevance]:
    """Return the (S,) query rows with a positive, and their positives."""
    if queries < 1 or gallery < 1:
        raise ShapeError(f"got {queries} queries and {gallery} gallery rows; expected at least one of each")
    if relevance is not None:
        if query_ids is not None or gallery_ids is not None:
            raise ConfigError("relevance and ids both define the positives; give one of them")
        graded = Relevance(relevance, queries, gallery)
        rows_S = _with_positives(graded.counts(), "no relevance is above 0")
        return rows_S, graded.keep(rows_S)
    if (query_ids is None) != (gallery_ids is None):
        given, missing = ("gallery_ids", "query_ids") if query_ids is None else ("query_ids", "gallery_ids")
        raise ConfigError(f"got {given} without {missing}; positives have equal ids, so give both")
    if query_ids is None:
        if queries != gallery:
            raise ShapeError(
                f"got {queries} queries and {gallery} gallery rows; without ids, row i matches query i, so the numbers "
                "must be equal (or give query_ids and gallery_ids)"
            )
        rows = torch.arange(queries)
        return rows, Positives(rows, rows)
    codes_Q, codes_G = matching_codes(query_ids, gallery_ids, ("query_ids", "gallery_ids"), (queries, gallery))
    rows_S = _with_positives(Positives(codes_Q, codes_G).counts(), "no gallery id equals a query id")
    return rows_S, Positives(codes_Q[rows_S], codes_G)


def _with_positives(counts_Q: Tensor, why: str) -> Tensor:
    rows_S = (counts_Q > 0).nonzero().flatten()
    if len(rows_S) == 0:
        raise DataError(f"none of the {len(counts_Q)} queries has a positive, since {why}")
    return rows_S


def _rows_of(relevance: Any, queries: int, gallery: int) -> Callable[[Tensor], Tensor]:
    expected = f"numbers of shape ({queries}, {gallery}), or a function of query rows"
    table_QG = as_dense(relevance, "relevance", expected)
    if tuple(table_QG.shape) != (queries, gallery):
        raise ShapeError(f"relevance has shape {tuple(table_QG.shape)}; expected {expected}")
    return lambda rows_q: table_QG[rows_q.to(table_QG.device)]
