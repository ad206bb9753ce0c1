"""Align+Uniform: alignment and uniformity without a contrastive term (Wang & Isola 2020)."""

from unialign._checks import check_nonnegative, check_number
from unialign.batch import Batch
from unialign.functional import unit_alignment
from unialign.losses._modality_terms import defined_values, modality_log_potentials
from unialign.losses._objective import LossTerm, Objective, mean_terms
from unialign.losses._options import check_pair_anchor, check_potential


class AlignUniform(Objective):
    """Alignment of true pairs and uniformity of each modality (Wang & Isola, ICML 2020).

    The loss is mean |x - y|^alpha over true pairs + uniformity_weight * mean over modalities of U, with
    U = log mean_{i != j} exp(-t |z_i - z_j|^2). The paper uses two views of one modality; the means over pairs and
    modalities are our extension, which reduces to the paper's loss at M = 2.

    Args:
        anchor: a modality (the pairs that contain it) or `"all"` (all pairs).
        alpha: exponent of the distance, from 1 to 64; 2 as published.
        t: 2 as published.
        uniformity_weight: lambda; 1 as in the released code. The best value depends on alpha and t.
    """

    name = "align_uniform"
    display_name = "Align+Uniform"

    def __init__(
        self, anchor: str = "all", *, alpha: float = 2.0, t: float = 2.0, uniformity_weight: float = 1.0
    ) -> None:
        super().__init__()
        check_pair_anchor(anchor, self.name)
        # The distance of opposite rows is 2, and 2^128 overflows float32.
        check_number("alpha", alpha, "from 1 to 64", lambda x: 1 <= x <= 64)
        check_potential(t)
        check_nonnegative("uniformity_weight", uniformity_weight)
        self.anchor, self.alpha, self.t = anchor, float(alpha), float(t)
        self.uniformity_weight = float(uniformity_weight)

    def terms(self, batch: Batch) -> dict[str, LossTerm]:
        alignment = unit_alignment(batch, anchor=self.anchor, alpha=self.alpha)
        terms = mean_terms(defined_values({"alignment": alignment}))
        if self.uniformity_weight != 0:
            values = modality_log_potentials(batch, t=self.t)
            named = {f"uniformity/{name}": value for name, value in values.items()}
            terms |= mean_terms(named, self.uniformity_weight)
        return terms
