"""ModGap: anchor alignment, uniformity of centroids, and InfoNCE (arXiv 2601.18525)."""

from collections.abc import Mapping

from unialign.batch import Batch
from unialign.functional import log_potential, unit_alignment, unit_centroids
from unialign.losses._bounded_parameter import Mode
from unialign.losses._contrast_objective import PairContrast
from unialign.losses._modality_terms import defined_values, modality_pairs
from unialign.losses._objective import LossTerm
from unialign.losses._options import check_potential
from unialign.ops import select_items


class ModGap(PairContrast):
    """InfoNCE plus alignment of true pairs and uniformity of centroids (arXiv 2601.18525).

    The loss is L_ATP + L_CU + contrast_weight * InfoNCE of the same pairs. L_ATP, the mean squared distance of true
    pairs, is UniAlign's alignment; L_CU = log mean_{i != j} exp(-t |c_i - c_j|^2) over the normalized centroids of
    items with at least two modalities.

    Args:
        anchor: the modality that the others align to, as published; `"all"` uses all pairs in L_ATP and InfoNCE.
        temperature: temperature of InfoNCE; 0.1 as published.
        temperature_mode, temperature_bounds: `fixed` as published; see `InfoNCE`.
        contrast_weight: 1 as published; 0 leaves only L_ATP and L_CU.
        t: 2 as published.
    """

    name = "modgap"
    display_name = "ModGap"
    needs_anchor = "any"

    def __init__(
        self,
        anchor: str,
        *,
        temperature: float | Mapping[str, float] = 0.1,
        temperature_mode: Mode = "fixed",
        temperature_bounds: tuple[float, float] = (0.01, 1.0),
        contrast_weight: float = 1.0,
        t: float = 2.0,
    ) -> None:
        super().__init__(anchor, temperature, temperature_mode, temperature_bounds, contrast_weight)
        check_potential(t)
        self.t = float(t)

    def terms(self, batch: Batch) -> dict[str, LossTerm]:
        alignment = unit_alignment(batch, anchor=self.anchor)
        centroid_BD, defined_B = unit_centroids(batch)
        tuples_B = defined_B & (batch.present_MB.sum(0) >= 2)
        values = {
            "alignment": alignment,
            "centroid": log_potential(centroid_BD, select_items(batch, tuples_B), t=self.t),
        }
        terms = {name: LossTerm(value, 1.0) for name, value in defined_values(values).items()}
        return terms | self.contrast_terms(batch, modality_pairs(batch, self.anchor))
