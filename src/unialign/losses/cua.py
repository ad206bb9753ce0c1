"""CUA and CUAXU: InfoNCE with additional uniformity and alignment (Fahim et al., arXiv 2405.18570)."""

from collections import Counter
from typing import Literal, get_args

from torch import Tensor

from unialign._checks import check_choice, check_nonnegative
from unialign._pair_keys import pair_name
from unialign.batch import Batch
from unialign.functional import cross_log_potential, unit_alignment
from unialign.losses._bounded_parameter import Mode
from unialign.losses._modality_terms import Pair, modality_log_potentials, modality_pairs, pair_contrasts
from unialign.losses._objective import LossTerm, Objective, mean_terms
from unialign.losses._options import check_pair_anchor, check_potential
from unialign.losses._temperature import Temperature

__all__ = ["CUA"]

CrossTerm = Literal["none", "xu"]


class CUA(Objective):
    """contrast_weight * InfoNCE + mean over pairs of (U_m + U_n) / 2 + mean squared distance of true pairs.

    U = log mean_{i != j} exp(-t |z_i - z_j|^2); all terms are unweighted as published (arXiv 2405.18570). The paper has
    one pair of modalities; the means over pairs are our extension. Pairs with an undefined uniformity (fewer than two
    rows with different ids) are excluded from the mean.

    Args:
        anchor: a modality (the M - 1 pairs that contain it) or `"all"` (all pairs).
        temperature: of InfoNCE; 0.01 as published.
        temperature_mode, temperature_bounds: `fixed` as published; see `InfoNCE`. The lower bound is 0.001, since the
            initial value is the lower bound of `InfoNCE`.
        contrast_weight: 1 as published; 0 leaves only uniformity and alignment.
        t: 2 as published.
        cross_term: `none` (CUA), or `xu` (CUAXU): adds the mean over pairs of log mean_{i != j} exp(-t |x_i - y_j|^2).
    """

    name = "cua"
    display_name = "CUA"
    temperature_kind = "cosines"

    def __init__(
        self,
        anchor: str = "all",
        *,
        temperature: float = 0.01,
        temperature_mode: Mode = "fixed",
        temperature_bounds: tuple[float, float] = (0.001, 1.0),
        contrast_weight: float = 1.0,
        t: float = 2.0,
        cross_term: CrossTerm = "none",
    ) -> None:
        super().__init__()
        check_pair_anchor(anchor, self.name)
        check_nonnegative("contrast_weight", contrast_weight)
        check_potential(t)
        check_choice("cross_term", cross_term, get_args(CrossTerm))
        self.anchor, self.contrast_weight, self.t = anchor, float(contrast_weight), float(t)
        self.cross_term: CrossTerm = cross_term
        self.temperature = Temperature(temperature, mode=temperature_mode, bounds=temperature_bounds)

    def terms(self, batch: Batch) -> dict[str, LossTerm]:
        pairs = modality_pairs(batch, self.anchor)
        terms = self._uniformity_terms(batch, pairs)
        distance, paired = unit_alignment(batch, anchor=self.anchor)
        if bool(paired):
            terms["alignment"] = LossTerm(distance, 1.0)
        if self.cross_term == "xu":
            terms |= mean_terms(self._cross(batch, pairs))
        if self.contrast_weight != 0:
            terms |= mean_terms(pair_contrasts(batch, pairs, temperature=self.temperature()), self.contrast_weight)
        return terms

    def _uniformity_terms(self, batch: Batch, pairs: list[Pair]) -> dict[str, LossTerm]:
        values = modality_log_potentials(batch, t=self.t)
        names = [(batch.names[m], batch.names[n]) for m, n in pairs]
        names = [pair for pair in names if pair[0] in values and pair[1] in values]
        uses = Counter(name for pair in names for name in pair)
        return {f"uniformity/{name}": LossTerm(values[name], count / (2 * len(names))) for name, count in uses.items()}

    def _cross(self, batch: Batch, pairs: list[Pair]) -> dict[str, Tensor]:
        values = {}
        for m, n in pairs:
            value, defined = cross_log_potential(
                batch.rows(m),
                batch.rows(n),
                t=self.t,
                present_B=batch.present_MB[m] & batch.present_MB[n],
                ids_B=batch.ids_B,
                shard=batch.shard,
            )
            if bool(defined):
                values[f"cross/{pair_name(batch.names[m], batch.names[n])}"] = value
        return values
