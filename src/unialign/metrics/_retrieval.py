"""Per-query retrieval metrics with a choice of how ties are ranked, and their bootstrap intervals.

Shapes: `Q` queries, `G` gallery, `D` dimension, `S` scored queries (those with a positive), `R` resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import torch
from torch import Tensor

from unialign._checks import check_choice, check_cutoffs, check_integer, check_nonnegative, check_text
from unialign.errors import ConfigError, DataError, ShapeError
from unialign.metrics._bootstrap import Interval, percentile_interval, weight_blocks, weighted_mean, weighted_median
from unialign.metrics._cosine_ranks import count_cosine_ranks
from unialign.metrics._labels import codes, matching_codes
from unialign.metrics._ranks import Positives, RankCounts, ScoreFunction, Ties, count_ranks
from unialign.ops import TIE_TOLERANCE, query_and_gallery


@dataclass(frozen=True, eq=False, repr=False)
class RetrievalResult:
    """Result of `retrieval`. Per-query tensors are float64, on the CPU, with one entry per scored query.

    Attributes:
        k: cut-offs of `recall`.
        ties: the policy for tied scores.
        rows: (S,) int64, the query row of each entry; queries without a positive in the gallery are not scored.
        queries_without_positive: number of queries that are not scored.
        gallery_size: G.
        ranks: (S,) rank of the best positive, from 1; may be fractional as an expectation over ties.
        reciprocal_ranks: (S,) in (0, 1]; with `expected`, the mean of 1 / rank.
        average_precision: (S,) in (0, 1].
        ndcg_scores: (S,) in (0, 1].
    """

    k: tuple[int, ...]
    ties: Ties
    rows: Tensor
    queries_without_positive: int
    gallery_size: int
    ranks: Tensor
    reciprocal_ranks: Tensor
    average_precision: Tensor
    ndcg_scores: Tensor
    _counts: RankCounts

    def __repr__(self) -> str:
        recall = ", ".join(f"recall@{k}={value:.4f}" for k, value in self.recall.items())
        return (
            f"RetrievalResult({recall}, median_rank={self.median_rank:g}, mrr={self.mrr:.4f}, map={self.map:.4f}, "
            f"ndcg={self.ndcg:.4f}, queries={len(self.rows)}, gallery={self.gallery_size})"
        )

    def hits(self, k: int) -> Tensor:
        """Return the (S,) probability that a positive is in the top k >= 1; 0 or 1 without ties."""
        check_cutoffs((k,))
        return self._counts.hits(k, self.ties)

    @property
    def recall(self) -> dict[int, float]:
        """Fraction of queries with *any* positive in the top k (hit rate, R@k), in [0, 1]."""
        return {k: float(self.hits(k).mean()) for k in self.k}

    @property
    def chance(self) -> dict[int, float]:
        """Recall that a random order of the gallery reaches on average for these queries, in [0, 1]."""
        positives_S = self._counts.positives
        random = replace(
            self._counts,
            above=torch.zeros_like(positives_S),
            tied=self.gallery_size - positives_S,
            tied_positives=positives_S,
        )
        return {k: float(random.hits(k, "expected").mean()) for k in self.k}

    @property
    def median_rank(self) -> float:
        """Median over queries of the rank of the best positive, at least 1."""
        return float(weighted_median(self.ranks, torch.ones(1, len(self.ranks), dtype=torch.float64)))

    @property
    def mrr(self) -> float:
        """Mean reciprocal rank of the best positive, in (0, 1]."""
        return float(self.reciprocal_ranks.mean())

    @property
    def map(self) -> float:
        """Mean average precision over the whole gallery, in (0, 1]."""
        return float(self.average_precision.mean())

    @property
    def ndcg(self) -> float:
        """Mean nDCG over the whole gallery with binary gains and discount 1 / log2(1 + rank), in (0, 1]."""
        return float(self.ndcg_scores.mean())

    def scores(self, metric: str) -> Tensor:
        """Return (S,) per-query values: "recall@K" for any K, "mrr", "map", "ndcg", "median_rank" (the ranks)."""
        check_text("metric", metric)
        if metric.startswith("recall@") and metric[7:].isdecimal():
            return self.hits(int(metric[7:]))
        table = {
            "mrr": self.reciprocal_ranks,
            "map": self.average_precision,
            "ndcg": self.ndcg_scores,
            "median_rank": self.ranks,
        }
        if metric not in table:
            raise ConfigError(
                f"unknown metric {metric!r}; expected 'recall@K' with K of at least 1 or one of {list(table)}"
            )
        return table[metric]

    def interval(
        self,
        metric: str = "recall@1",
        *,
        level: float = 0.95,
        resamples: int = 1000,
        seed: int = 0,
        groups: Any = None,
    ) -> Interval:
        """Return the percentile bootstrap interval over queries for a fixed gallery; see `resample_weights`.

        Args:
            metric: see `scores`.
            level: in (0, 1).
            resamples: R.
            seed: seed of the resamples, which are equal for all metrics with the same seed and groups.
            groups: (Q,) labels; queries of a group (captions of an image, frames of a video) are resampled together.
        """
        scores_S = self.scores(metric)
        group_S = None
        if groups is not None:
            group_S = codes(groups, "groups", rows=len(self.rows) + self.queries_without_positive)[self.rows]
        statistic = weighted_median if metric == "median_rank" else weighted_mean
        blocks = weight_blocks(len(scores_S) if group_S is None else group_S, resamples=resamples, seed=seed)
        values_R = torch.cat([statistic(scores_S, weights_RN) for weights_RN in blocks])
        whole = statistic(scores_S, torch.ones(1, len(scores_S), dtype=torch.float64))
        return percentile_interval(values_R, level, estimate=float(whole))


def retrieval(
    queries: Any,
    gallery: Any,
    *,
    query_ids: Any = None,
    gallery_ids: Any = None,
    k: Sequence[int] = (1, 5, 10),
    ties: Ties = "expected",
    batch_size: int = 1024,
) -> RetrievalResult:
    """Rank the gallery rows by cosine for each query row.

    `recall[k]` is the fraction of queries with any positive in the top k. Candidates whose scores differ by at most
    1e-12 are tied; with `expected`, every metric is its mean over random orders of tied candidates, so a space
    collapsed to one point scores at chance level for any order of its rows.

    Args:
        queries: (Q, D) floating tensor or array; rows are L2-normalized here.
        gallery: (G, D).
        query_ids, gallery_ids: (Q,), (G,) integers or strings; positives have equal ids. Without ids, gallery row i is
            the positive of query i. Queries without a positive are excluded and counted.
        k: cut-offs; values above G act as G.
        ties: `expected`, `optimistic` (positives first) or `pessimistic` (positives last).
        batch_size: maximum number of queries scored at once. The result does not depend on it.

    Returns:
        See `RetrievalResult`. If every query has one positive, memory is O(Q + G) in addition to the inputs, which may
        be memory maps, and most of the work is a float32 product: only candidates within rounding error of the positive
        are rescored in float64, so ranks equal those of a float64 computation. Queries with several positives require a
        float64 copy of the gallery and a sort per query.

    Raises:
        ShapeError: empty or not 2-D, different dims, or Q != G without ids.
        NonFiniteError: a row holds NaN or infinity or has norm zero.
        DataError: no query has a positive.
        ConfigError: only one of query_ids and gallery_ids, or an invalid option.
    """
    unit_queries, unit_gallery = query_and_gallery(queries, gallery)

    _check_options(k, ties, batch_size)
    rows_S, positives = _positives(len(unit_queries), len(unit_gallery), query_ids, gallery_ids)
    counts = count_cosine_ranks(unit_queries, unit_gallery, positives, rows_S, ties=ties, batch_size=batch_size)
    return _result(counts, rows_S, len(unit_queries), k, ties)


def retrieval_from_scores(
    score: ScoreFunction,
    *,
    queries: int,
    gallery: int,
    query_ids: Any = None,
    gallery_ids: Any = None,
    k: Sequence[int] = (1, 5, 10),
    ties: Ties = "expected",
    batch_size: int = 1024,
    tolerance: float = TIE_TOLERANCE,
) -> RetrievalResult:
    """Rank a gallery by any score, such as negative tuple volume, cosine to a multimodal centroid, or a re-ranker.

    Args:
        score: maps int64 query rows (q,) to (q, gallery) scores, preferably float64, where larger is better. Scores
            within `tolerance` are tied.
        queries, gallery: Q and G.
        query_ids, gallery_ids, k, ties, batch_size: see `retrieval`.
        tolerance: absolute; use about 1e-6 for scores computed in float32.

    Raises:
        As in `retrieval`; also NonFiniteError for NaN scores.
    """
    _check_options(k, ties, batch_size)
    check_nonnegative("tolerance", tolerance)
    rows_S, positives = _positives(queries, gallery, query_ids, gallery_ids)
    counts = count_ranks(lambda r: score(rows_S[r]), positives, ties=ties, batch_size=batch_size, tolerance=tolerance)
    return _result(counts, rows_S, queries, k, ties)


def _check_options(k: Sequence[int], ties: Ties, batch_size: int) -> None:
    check_cutoffs(k)
    check_choice("ties", ties, get_args(Ties))
    check_integer("batch_size", batch_size, low=1)


def _result(counts: RankCounts, rows_S: Tensor, queries: int, k: Sequence[int], ties: Ties) -> RetrievalResult:
    return RetrievalResult(
        k=check_cutoffs(k),
        ties=ties,
        rows=rows_S,
        queries_without_positive=queries - len(rows_S),
        gallery_size=counts.gallery,
        ranks=counts.ranks(ties),
        reciprocal_ranks=counts.reciprocal_ranks(ties),
        average_precision=counts.average_precision,
        ndcg_scores=counts.ndcg,
        _counts=counts,
    )


def _positives(queries: int, gallery: int, query_ids: Any, gallery_ids: Any) -> tuple[Tensor, Positives]:
    """Return the (S,) query rows with a positive, and their positives."""
    if queries < 1 or gallery < 1:
        raise ShapeError(f"got {queries} queries and {gallery} gallery rows; expected at least one of each")
    if (query_ids is None) != (gallery_ids is None):
        given, missing = ("gallery_ids", "query_ids") if query_ids is None else ("query_ids", "gallery_ids")
        raise ConfigError(f"{given} without {missing}: positives have equal ids, so both must be given")
    if query_ids is None:
        if queries != gallery:
            raise ShapeError(
                f"{queries} queries and {gallery} gallery rows; without ids row i matches query i, so the counts must "
                "agree (or give query_ids and gallery_ids)"
            )
        rows = torch.arange(queries)
        return rows, Positives(rows, rows)
    codes_Q, codes_G = matching_codes(query_ids, gallery_ids, ("query_ids", "gallery_ids"), (queries, gallery))
    rows_S = (Positives(codes_Q, codes_G).counts() > 0).nonzero().flatten()
    if len(rows_S) == 0:
        raise DataError(f"none of the {queries} queries has a positive: no gallery id equals a query id")
    return rows_S, Positives(codes_Q[rows_S], codes_G)
