"""Compute per-query retrieval metrics with a policy for ties, and their bootstrap intervals.

Shapes: `Q` queries, `G` gallery rows, `D` dimension, `S` scored queries (those with a positive), `R` resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import torch
from torch import Tensor

from unialign._checks import check_choice, check_cutoffs, check_integer, check_nonnegative, check_text
from unialign.errors import ConfigError
from unialign.metrics._bootstrap import Interval, percentile_interval, weight_blocks, weighted_mean, weighted_median
from unialign.metrics._cosine_ranks import count_cosine_ranks
from unialign.metrics._labels import codes
from unialign.metrics._rank_sums import Ties
from unialign.metrics._ranks import RankCounts, ScoreFunction, count_ranks
from unialign.metrics._relevance import find_positives
from unialign.ops import TIE_TOLERANCE, query_and_gallery


@dataclass(frozen=True, eq=False, repr=False)
class RetrievalResult:
    """Result of `retrieval`. Per-query tensors are float64, on the CPU, with one entry per scored query.

    Attributes:
        k: cut-offs of `recall`, `map_at` and `ndcg_at`.
        ties: the policy for tied scores.
        rows: (S,) int64, the query row of each entry; queries without a positive in the gallery are not scored.
        queries_without_positive: number of queries that are not scored.
        gallery_size: G.
        ranks: (S,) rank of the best positive, from 1; may be fractional as an expectation over ties.
        reciprocal_ranks: (S,) in (0, 1]; with `expected`, the mean of 1 / rank.
        average_precision: (S,) in (0, 1], over the whole gallery.
        ndcg_scores: (S,) in (0, 1], over the whole gallery.
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
        """Expected recall of a random order of the gallery for these queries, in [0, 1]."""
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
        """Mean nDCG over the whole gallery with discount 1 / log2(1 + rank), in (0, 1].

        The gain of a candidate is its `relevance`, or 1 for a positive if no relevance was given.
        """
        return float(self.ndcg_scores.mean())

    @property
    def map_at(self) -> dict[int, float]:
        """Mean average precision within the top k, in [0, 1], as `map_cut` of trec_eval.

        The sum of the precisions at the positives in the top k is divided by the number of all positives of the query.
        """
        return {k: float(precision_S.mean()) for k, (precision_S, _) in self._counts.cut.items()}

    @property
    def ndcg_at(self) -> dict[int, float]:
        """Mean nDCG of the top k, in [0, 1], as `ndcg_cut` of trec_eval: DCG divided by the DCG of the ideal top k."""
        return {k: float(ndcg_S.mean()) for k, (_, ndcg_S) in self._counts.cut.items()}

    def scores(self, metric: str) -> Tensor:
        """Return (S,) per-query values of a metric.

        Args:
            metric: "recall@K" for any K, "map@K" or "ndcg@K" for K in `k`, "mrr", "map", "ndcg", or "median_rank",
                which gives the ranks.
        """
        check_text("metric", metric)
        kind, _, cutoff = metric.partition("@")
        if kind == "recall" and cutoff.isdecimal():
            return self.hits(int(cutoff))
        if kind in ("map", "ndcg") and cutoff.isdecimal():
            if int(cutoff) not in self._counts.cut:
                raise ConfigError(f"{metric!r} needs its cut-off in k; this result has k={self.k}")
            return self._counts.cut[int(cutoff)][kind == "ndcg"]
        table = {
            "mrr": self.reciprocal_ranks,
            "map": self.average_precision,
            "ndcg": self.ndcg_scores,
            "median_rank": self.ranks,
        }
        if metric not in table:
            raise ConfigError(
                f"unknown metric {metric!r}; expected 'recall@K', 'map@K' or 'ndcg@K' with K of at least 1, or one of "
                f"{list(table)}"
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
    relevance: Any = None,
    k: Sequence[int] = (1, 5, 10),
    ties: Ties = "expected",
    batch_size: int = 1024,
) -> RetrievalResult:
    """Rank the gallery rows by cosine for each query row.

    `recall[k]` is the fraction of queries with any positive in the top k. Candidates whose scores differ by at most
    1e-12 are tied; with `expected`, every metric is the mean over random orders of the tied candidates, so a space
    collapsed to one point scores at chance level for any order of its rows.

    Args:
        queries: (Q, D) floating tensor or array; rows are L2-normalized here.
        gallery: (G, D).
        query_ids, gallery_ids: (Q,), (G,) integers or strings; positives have equal ids. Without ids, gallery row i is
            the positive of query i. Queries without a positive are excluded and counted.
        relevance: instead of ids, (Q, G) numbers of at least 0, or a function of int64 query rows (q,) that returns (q,
            G) for large sets. Rows with entries above 0 are positives, and the entries are the gains of nDCG, as in
            trec_eval (pass 2^r - 1 for exponential gains).
        k: cut-offs; values above G are equivalent to G.
        ties: `expected`, `optimistic` (positives first) or `pessimistic` (positives last).
        batch_size: maximum number of queries scored at once. The batch size does not affect the result.

    Returns:
        See `RetrievalResult`. If every query has one positive, memory is O(Q + G) in addition to the inputs, which may
        be memory maps. Most of the work is then a float32 product; only candidates within rounding error of the
        positive are rescored in float64, so ranks equal those of a float64 computation. Queries with several positives,
        and all queries with `relevance`, require a float64 copy of the gallery and a sort per query.

    Raises:
        ShapeError: an input is empty or not 2-D, the dimensions differ, or Q != G without ids.
        NonFiniteError: a row contains NaN or infinity, or has norm zero.
        DataError: no query has a positive.
        ConfigError: only one of query_ids and gallery_ids, both ids and relevance, or an invalid option.
    """
    unit_queries, unit_gallery = query_and_gallery(queries, gallery)

    _check_options(k, ties, batch_size)
    rows_S, positives = find_positives(len(unit_queries), len(unit_gallery), query_ids, gallery_ids, relevance)
    counts = count_cosine_ranks(
        unit_queries, unit_gallery, positives, rows_S, ties=ties, batch_size=batch_size, k=_distinct(k)
    )
    return make_result(counts, rows_S, len(unit_queries), k, ties)


def retrieval_from_scores(
    score: ScoreFunction,
    *,
    queries: int,
    gallery: int,
    query_ids: Any = None,
    gallery_ids: Any = None,
    relevance: Any = None,
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
        query_ids, gallery_ids, relevance, k, ties, batch_size: see `retrieval`.
        tolerance: absolute tolerance of ties; use about 1e-6 for scores computed in float32.

    Raises:
        As in `retrieval`; also NonFiniteError for NaN scores.
    """
    _check_options(k, ties, batch_size)
    check_nonnegative("tolerance", tolerance)
    rows_S, positives = find_positives(queries, gallery, query_ids, gallery_ids, relevance)
    counts = count_ranks(
        lambda r: score(rows_S[r]),
        positives,
        ties=ties,
        batch_size=batch_size,
        tolerance=tolerance,
        k=_distinct(k),
    )
    return make_result(counts, rows_S, queries, k, ties)


def _check_options(k: Sequence[int], ties: Ties, batch_size: int) -> None:
    check_cutoffs(k)
    check_choice("ties", ties, get_args(Ties))
    check_integer("batch_size", batch_size, low=1)


def _distinct(k: Sequence[int]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(check_cutoffs(k)))


def make_result(counts: RankCounts, rows_S: Tensor, queries: int, k: Sequence[int], ties: Ties) -> RetrievalResult:
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
