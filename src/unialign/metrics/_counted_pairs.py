"""Compute retrieval metrics from counts summed over the blocks of a gallery that does not fit in memory.

Shapes: `P` pairs of a query and one of its positives, `S` scored queries, `m` maximum number of positives of a query,
`s` queries of one tile.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from unialign.metrics._rank_sums import Tables
from unialign.metrics._ranks import RankCounts
from unialign.metrics._retrieval import RetrievalResult, make_result
from unialign.ops import TIE_TOLERANCE, row_tiles


def retrieval_from_counts(
    query_P: Tensor,
    score_P: Tensor,
    above_P: Tensor,
    level_P: Tensor,
    *,
    queries: int,
    gallery: int,
    k: Sequence[int] = (1, 5, 10),
) -> RetrievalResult:
    """Compute the metrics of each query. `above_P` counts rows whose score is larger by more than 1e-12, and `level_P`
    rows whose score is within 1e-12, including the positive.
    """
    rows_S, place_P, positives_S = torch.unique(query_P, return_inverse=True, return_counts=True)
    best_S = torch.full((len(rows_S),), -torch.inf, dtype=torch.float64)
    best_S.scatter_reduce_(0, place_P, score_P, "amax")
    at_best_P = score_P >= best_S[place_P] - TIE_TOLERANCE
    tied_positives_S = torch.zeros_like(positives_S).index_add_(0, place_P, at_best_P.long())
    first_P = score_P == best_S[place_P]
    above_S, level_S = torch.zeros_like(positives_S), torch.zeros_like(positives_S)
    above_S[place_P[first_P]], level_S[place_P[first_P]] = above_P[first_P], level_P[first_P]
    tables = Tables(gallery)
    found_P, relevant_P = _among_positives(place_P, score_P, positives_S)
    distinct = list(dict.fromkeys(k))
    cutoffs = [None, *distinct]
    sums_C2S = torch.zeros(len(cutoffs), 2, len(rows_S), dtype=torch.float64)
    for sums_2S, at in zip(sums_C2S, cutoffs, strict=True):
        precision_P, gain_P = tables.block(above_P, level_P, found_P, relevant_P, "expected", at)
        # Each of the r positives of a tie block has the sum of the whole block, so each contributes 1 / r of this sum.
        sums_2S[0].index_add_(0, place_P, precision_P / relevant_P)
        sums_2S[1].index_add_(0, place_P, gain_P / relevant_P)
    sums_C2S /= torch.stack([positives_S.expand(len(cutoffs), -1), tables.ideal(positives_S, None, cutoffs)], 1)
    (average_precision_S, ndcg_S), *cut = sums_C2S
    counts = RankCounts(
        above=above_S,
        tied=level_S - tied_positives_S,
        tied_positives=tied_positives_S,
        positives=positives_S,
        average_precision=average_precision_S,
        ndcg=ndcg_S,
        gallery=gallery,
        cut={at: (precision_S, gain_S) for at, (precision_S, gain_S) in zip(distinct, cut, strict=True)},
    )
    return make_result(counts, rows_S, queries, k, "expected")


def _among_positives(place_P: Tensor, score_P: Tensor, positives_S: Tensor) -> tuple[Tensor, Tensor]:
    """Count the positives of the query that score higher, and those that tie, including itself."""
    most = int(positives_S.max())
    start_S = positives_S.cumsum(0) - positives_S
    column_P = torch.arange(len(place_P)) - start_S[place_P]
    # The padding is NaN, so comparisons with it are False.
    score_Sm = torch.full((len(positives_S), most), torch.nan, dtype=torch.float64)
    score_Sm[place_P, column_P] = score_P
    found_Sm, relevant_Sm = (torch.zeros(len(positives_S), most, dtype=torch.int64) for _ in range(2))
    for rows in row_tiles(len(positives_S), most * most):
        difference_smm = score_Sm[rows, None, :] - score_Sm[rows, :, None]
        found_Sm[rows] = (difference_smm > TIE_TOLERANCE).sum(-1)
        relevant_Sm[rows] = (difference_smm.abs() <= TIE_TOLERANCE).sum(-1)
    return found_Sm[place_P, column_P], relevant_Sm[place_P, column_P]
