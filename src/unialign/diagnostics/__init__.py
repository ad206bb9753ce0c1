"""Numbers about a space: how far its modalities lie apart, how many directions it uses, how its forces oppose."""

from unialign.diagnostics._conflict import ConflictResult, conflict
from unialign.diagnostics._gap import modality_gap, modality_gap_debiased, true_pair_cosine, true_pair_cosines
from unialign.diagnostics._hubness import HubnessResult, hubness
from unialign.diagnostics._spectrum import effective_rank

__all__ = [
    "ConflictResult",
    "HubnessResult",
    "conflict",
    "effective_rank",
    "hubness",
    "modality_gap",
    "modality_gap_debiased",
    "true_pair_cosine",
    "true_pair_cosines",
]
