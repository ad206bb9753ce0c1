"""Numbers about tasks: retrieval, clustering, and how sure one may be of them."""

from unialign.metrics._bootstrap import (
    Interval,
    percentile_interval,
    resample_weights,
    weight_blocks,
    weighted_mean,
    weighted_median,
)
from unialign.metrics._clustering import Clustering, kmeans, nmi, v_measure, weighted_nmi, weighted_v_measure
from unialign.metrics._retrieval import RetrievalResult, higher_is_better, retrieval, retrieval_from_scores
from unialign.metrics._significance import Comparison, compare_paired, holm, sign_flip_p_value

__all__ = [
    "Clustering",
    "Comparison",
    "Interval",
    "RetrievalResult",
    "compare_paired",
    "higher_is_better",
    "holm",
    "kmeans",
    "nmi",
    "percentile_interval",
    "resample_weights",
    "retrieval",
    "retrieval_from_scores",
    "sign_flip_p_value",
    "v_measure",
    "weight_blocks",
    "weighted_mean",
    "weighted_median",
    "weighted_nmi",
    "weighted_v_measure",
]
