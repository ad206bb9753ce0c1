"""Numbers about tasks: retrieval, clustering, and how sure one may be of them."""

from unialign.metrics._bootstrap import (
    Interval,
    percentile_interval,
    resample_weights,
    weight_blocks,
    weighted_mean,
    weighted_median,
)
from unialign.metrics._clustering import Clustering, kmeans, nmi, v_measure, weighted_v_measure
from unialign.metrics._knn import Nearest, nearest
from unialign.metrics._retrieval import RetrievalResult, retrieval, retrieval_from_scores
from unialign.metrics._significance import add_seed_variance, bootstrap_p_value, holm

__all__ = [
    "Clustering",
    "Interval",
    "Nearest",
    "RetrievalResult",
    "add_seed_variance",
    "bootstrap_p_value",
    "holm",
    "kmeans",
    "nearest",
    "nmi",
    "percentile_interval",
    "resample_weights",
    "retrieval",
    "retrieval_from_scores",
    "v_measure",
    "weight_blocks",
    "weighted_mean",
    "weighted_median",
    "weighted_v_measure",
]
