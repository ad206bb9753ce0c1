"""GRAM: contrastive loss of tuple volumes (Cicchetti et al. 2025)."""

from unialign.batch import Batch
from unialign.functional import volume_contrast
from unialign.losses._contrast_objective import TupleContrast
from unialign.losses._objective import LossTerm


class GRAM(TupleContrast):
    """Symmetric InfoNCE with the logits -Vol(anchor of i, other modalities of j) / tau.

    Rows and columns are the items with the anchor and at least one other modality; an absent modality is treated as
    orthogonal to all others. The volume ignores the sign of each vector and is 0 for coplanar vectors, so GRAM trains
    poorly from scratch. The authors start from a contrastively trained model; see `infonce_warmup_ratio` of
    `unialign.fit`.

    Args:
        anchor: a modality.
        temperature: tau > 0, the initial value if it is learnable; 0.07 as published.
        temperature_mode: `learnable` within `temperature_bounds`, as published, or `fixed`.
        label_smoothing: 0.1 as published.
        eps: floor of the squared volume, added under the square root; 0 by default. The gradient is finite for any
            `eps`. Squared volumes are small, below 1e-8 for five modalities with cosines of 0.998.
    """

    name = "gram"
    display_name = "GRAM"
    temperature_kind = "cosines"

    def terms(self, batch: Batch) -> dict[str, LossTerm]:
        present_B = batch.present_MB[batch.index(self.anchor)] & (batch.present_MB.sum(0) >= 2)
        return self.contrast_terms("volume_contrast", volume_contrast, batch, present_B)
