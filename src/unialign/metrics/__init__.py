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
from unialign.metrics._knn import KNNResult, knn
from unialign.metrics._retrieval import RetrievalResult, retrieval, retrieval_from_scores
from unialign.metrics._significance import add_seed_variance, bootstrap_p_value, holm_correction

__all__ = [
    "Clustering",
    "Interval",
    "KNNResult",
    "RetrievalResult",
    "add_seed_variance",
    "bootstrap_p_value",
    "holm_correction",
    "kmeans",
    "knn",
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
