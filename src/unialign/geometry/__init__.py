"""Numbers about a space: how far its modalities lie apart, how it is spread, and how the forces on it oppose."""

from unialign.geometry._bandwidth import DivergenceWarning
from unialign.geometry._conflict import ConflictResult, conflict
from unialign.geometry._conflict_over_anchors import AnchorsResult, conflict_over_anchors
from unialign.geometry._divergence import (
    cauchy_schwarz_divergence,
    effective_neighbours,
    gcsd,
    holder_divergence,
    holder_upper_bound,
    median_bandwidth,
    mmd2,
)
from unialign.geometry._divergence_profile import DivergenceProfile, DivergenceRow, divergence_profile
from unialign.geometry._gap import modality_gap, modality_gap_debiased, true_pair_cosine, true_pair_cosines
from unialign.geometry._hubness import HubnessResult, hubness
from unialign.geometry._spectrum import effective_rank

__all__ = [
    "AnchorsResult",
    "ConflictResult",
    "DivergenceProfile",
    "DivergenceRow",
    "DivergenceWarning",
    "HubnessResult",
    "cauchy_schwarz_divergence",
    "conflict",
    "conflict_over_anchors",
    "divergence_profile",
    "effective_neighbours",
    "effective_rank",
    "gcsd",
    "holder_divergence",
    "holder_upper_bound",
    "hubness",
    "median_bandwidth",
    "mmd2",
    "modality_gap",
    "modality_gap_debiased",
    "true_pair_cosine",
    "true_pair_cosines",
]
