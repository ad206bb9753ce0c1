from unialign.geometry._bandwidth import DivergenceWarning as DivergenceWarning
from unialign.geometry._conflict import (
    AnchorsResult as AnchorsResult,
    ConflictResult as ConflictResult,
    conflict as conflict,
    conflict_over_anchors as conflict_over_anchors,
)
from unialign.geometry._divergence import (
    cauchy_schwarz_divergence as cauchy_schwarz_divergence,
    effective_neighbors as effective_neighbors,
    gcsd as gcsd,
    holder_divergence as holder_divergence,
    holder_upper_bound as holder_upper_bound,
    median_bandwidth as median_bandwidth,
    mmd2 as mmd2,
)
from unialign.geometry._divergence_profile import (
    DivergenceProfile as DivergenceProfile,
    DivergenceRow as DivergenceRow,
    divergence_profile as divergence_profile,
)
from unialign.geometry._gap import (
    modality_gap as modality_gap,
    modality_gap_debiased as modality_gap_debiased,
    true_pair_cosine as true_pair_cosine,
    true_pair_cosines as true_pair_cosines,
)
from unialign.geometry._hubness import HubnessResult as HubnessResult, hubness as hubness
from unialign.geometry._principal_map import drawn_places as drawn_places, principal_map as principal_map
from unialign.geometry._spectrum import effective_rank as effective_rank

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
    "effective_neighbors",
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
