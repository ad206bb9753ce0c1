"""CUA and CUAXU: InfoNCE with additional uniformity and alignment (Fahim et al., arXiv 2405.18570)."""

from collections import Counter
from collections.abc import Mapping
from typing import Literal, get_args

from unialign._checks import check_choice
from unialign.batch import Batch
from unialign.functional import cross_log_potential, unit_alignment
from unialign.losses._bounded_parameter import Mode
from unialign.losses._contrast_objective import PairContrast
from unialign.losses._modality_terms import (
    Pair,
    defined_values,
    modality_log_potentials,
    modality_pairs,
    pair_values,
)
from unialign.losses._objective import LossTerm, mean_terms
from unialign.losses._options import check_potential

CrossTerm = Literal["none", "xu"]


class CUA(PairContrast):
    """InfoNCE plus uniformity and alignment (arXiv 2405.18570).

    The loss is contrast_weight * InfoNCE + mean over pairs of (U_m + U_n) / 2 + mean squared distance of true pairs,
    with U = log mean_{i != j} exp(-t |z_i - z_j|^2); all terms are unweighted as published. The paper has one pair of
    modalities; the means over pairs are our extension. Pairs with an undefined uniformity (fewer than two rows with
    different ids) are excluded from the mean.

    Args:
        anchor: a modality (the M - 1 pairs that contain it) or `"all"` (all pairs).
        temperature: temperature of InfoNCE; 0.01 as published.
        temperature_mode, temperature_bounds: `fixed` as published; see `InfoNCE`. The default lower bound is 0.001,
            since the initial value equals the lower bound of `InfoNCE`.
        contrast_weight: 1 as published; 0 leaves only uniformity and alignment.
        t: 2 as published.
        cross_term: `none` (CUA), or `xu` (CUAXU), which adds the mean over pairs of log mean_{i != j} exp(-t |x_i -
            y_j|^2).
    """

    name = "cua"
    display_name = "CUA"

    def __init__(
        self,
        anchor: str = "all",
        *,
        temperature: float | Mapping[str, float] = 0.01,
        temperature_mode: Mode = "fixed",
        temperature_bounds: tuple[float, float] = (0.001, 1.0),
        contrast_weight: float = 1.0,
        t: float = 2.0,
        cross_term: CrossTerm = "none",
    ) -> None:
        super().__init__(anchor, temperature, temperature_mode, temperature_bounds, contrast_weight)
        check_potential(t)
        check_choice("cross_term", cross_term, get_args(CrossTerm))
        self.t = float(t)
        self.cross_term: CrossTerm = cross_term

    def terms(self, batch: Batch) -> dict[str, LossTerm]:
        pairs = modality_pairs(batch, self.anchor)
        terms = self._uniformity_terms(batch, pairs)
        terms |= mean_terms(defined_values({"alignment": unit_alignment(batch, anchor=self.anchor)}))
        if self.cross_term == "xu":
            terms |= mean_terms(defined_values(pair_values(cross_log_potential, batch, pairs, "cross", t=self.t)))
        return terms | self.contrast_terms(batch, pairs)

    def _uniformity_terms(self, batch: Batch, pairs: list[Pair]) -> dict[str, LossTerm]:
        values = modality_log_potentials(batch, t=self.t)
        names = [(batch.names[m], batch.names[n]) for m, n in pairs]
        names = [pair for pair in names if pair[0] in values and pair[1] in values]
        uses = Counter(name for pair in names for name in pair)
        return {f"uniformity/{name}": LossTerm(values[name], count / (2 * len(names))) for name, count in uses.items()}
