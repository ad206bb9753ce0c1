"""GRAM: contrast of tuple volumes (Cicchetti et al. 2025)."""

from unialign._checks import check_nonnegative
from unialign.batch import Batch
from unialign.functional import volume_contrast
from unialign.losses._bounded_parameter import Mode
from unialign.losses._objective import LossTerm, Objective
from unialign.losses._options import check_label_smoothing, check_tuple_anchor, default_volume_eps
from unialign.losses._temperature import Temperature

__all__ = ["GRAM"]


class GRAM(Objective):
    """Symmetric InfoNCE with the logits -Vol(anchor of i, other modalities of j) / tau.

    Rows and columns are the items with the anchor and at least one other modality; an absent modality counts as an
    extra orthonormal axis. The volume ignores the sign of each vector and is 0 for coplanar vectors, so GRAM trains
    poorly from scratch: its authors continue a contrastively trained model, see `infonce_warmup_ratio` of
    `unialign.fit`.

    Args:
        anchor: a modality.
        temperature: tau > 0, the initial value if it is learnable; 0.07 as published.
        temperature_mode: `learnable` within `temperature_bounds`, as published, or `fixed`.
        label_smoothing: 0.1 as published.
        eps: added to the squared volume under the root; default 1e-8 in float32 and 1e-14 in float64.
    """

    name = "gram"
    display_name = "GRAM"
    # Volumes ignore signs: the authors continue a contrastively trained model.
    initialization = "contrastive"
    needs_anchor = "modality"
    temperature_kind = "cosines"

    def __init__(
        self,
        anchor: str,
        *,
        temperature: float = 0.07,
        temperature_mode: Mode = "learnable",
        temperature_bounds: tuple[float, float] = (0.01, 1.0),
        label_smoothing: float = 0.1,
        eps: float | None = None,
    ) -> None:
        super().__init__()
        check_tuple_anchor(anchor, self.name)
        if eps is not None:
            check_nonnegative("eps", eps)
        self.anchor, self.eps = anchor, eps
        check_label_smoothing(label_smoothing)
        self.label_smoothing = float(label_smoothing)
        self.temperature = Temperature(temperature, mode=temperature_mode, bounds=temperature_bounds)

    def terms(self, batch: Batch) -> dict[str, LossTerm]:
        a = batch.index(self.anchor)
        present_B = batch.present_MB[a] & (batch.present_MB.sum(0) >= 2)
        if not bool(present_B.any()):
            return {}
        eps = default_volume_eps(batch.z_MBD.dtype) if self.eps is None else self.eps
        value = volume_contrast(
            batch,
            anchor=a,
            items_B=present_B,
            temperature=self.temperature(),
            label_smoothing=self.label_smoothing,
            eps=eps,
        )
        return {"volume_contrast": LossTerm(value, 1.0)}
