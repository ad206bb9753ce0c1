from unialign.metrics._bootstrap import (
    Interval as Interval,
    percentile_interval as percentile_interval,
    resample_weights as resample_weights,
    weight_blocks as weight_blocks,
    weighted_mean as weighted_mean,
    weighted_median as weighted_median,
)
from unialign.metrics._clustering import (
    Clustering as Clustering,
    kmeans as kmeans,
    v_measure as v_measure,
    weighted_v_measure as weighted_v_measure,
)
from unialign.metrics._counted_pairs import retrieval_from_counts as retrieval_from_counts
from unialign.metrics._knn import KNNResult as KNNResult, knn as knn
from unialign.metrics._labels import codes as codes, label_codes as label_codes
from unialign.metrics._mixed_pool import mixed_pool as mixed_pool
from unialign.metrics._pool_rows import noisy_copies as noisy_copies
from unialign.metrics._pool_scores import MixedPoolResult as MixedPoolResult, PoolScores as PoolScores
from unialign.metrics._ranks import RankCounts as RankCounts
from unialign.metrics._retrieval import (
    RetrievalResult as RetrievalResult,
    retrieval as retrieval,
    retrieval_from_scores as retrieval_from_scores,
)
from unialign.metrics._significance import (
    add_seed_variance as add_seed_variance,
    bootstrap_p_value as bootstrap_p_value,
    holm_correction as holm_correction,
)

__all__ = [
    "Clustering",
    "Interval",
    "KNNResult",
    "MixedPoolResult",
    "PoolScores",
    "RetrievalResult",
    "add_seed_variance",
    "bootstrap_p_value",
    "holm_correction",
    "kmeans",
    "knn",
    "mixed_pool",
    "percentile_interval",
    "resample_weights",
    "retrieval",
    "retrieval_from_scores",
    "v_measure",
    "weight_blocks",
    "weighted_mean",
    "weighted_v_measure",
]
