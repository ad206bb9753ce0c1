"""Numbers about tasks: retrieval, clustering, and how sure one may be of them."""

from unialign.metrics._bootstrap import (
    Interval,
    percentile_interval,
    resample_weights,
    weight_blocks,
    weighted_mean,
    weighted_median,
)
from unialign.metrics._retrieval import RetrievalResult, higher_is_better, retrieval, retrieval_from_scores

__all__ = [
    "Interval",
    "RetrievalResult",
    "higher_is_better",
    "percentile_interval",
    "resample_weights",
    "retrieval",
    "retrieval_from_scores",
    "weight_blocks",
    "weighted_mean",
    "weighted_median",
]
