"""Numbers about a space: how far its modalities lie apart, how it is spread, and how the forces on it oppose."""

from unialign.diagnostics._anchors import AnchorsResult, conflict_over_anchors
from unialign.diagnostics._bandwidth import DivergenceWarning
from unialign.diagnostics._conflict import ConflictResult, conflict
from unialign.diagnostics._divergence import (
    cauchy_schwarz_divergence,
    effective_neighbours,
    gcsd,
    holder_divergence,
    holder_upper_bound,
    median_bandwidth,
    mmd2,
)
from unialign.diagnostics._gap import modality_gap, modality_gap_debiased, true_pair_cosine, true_pair_cosines
from unialign.diagnostics._hubness import HubnessResult, hubness
from unialign.diagnostics._profile import DivergenceProfile, DivergenceRow, divergence_profile
from unialign.diagnostics._spectrum import effective_rank

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
