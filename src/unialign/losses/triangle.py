"""TRIANGLE: contrast of triangle areas (Cicchetti et al. 2025)."""

from typing import get_args

from unialign._checks import check_choice, check_nonnegative
from unialign.batch import Batch
from unialign.errors import ShapeError
from unialign.functional import area_contrast
from unialign.losses._bounded_parameter import Mode
from unialign.losses._objective import LossTerm, Objective
from unialign.losses._options import check_label_smoothing, check_tuple_anchor, default_volume_eps
from unialign.losses._temperature import Temperature
from unialign.ops import TriangleForm

__all__ = ["Triangle"]


class Triangle(Objective):
    """Symmetric InfoNCE with the logits -A(anchor of i, the two other modalities of j) / tau; M = 3 exactly.

    A is the area of the triangle with the three unit vectors as corners. Rows and columns are the complete items. The
    area is 0 if two corners coincide, regardless of the third, so TRIANGLE alone does not align all three: its authors
    continue a contrastively trained model, see `infonce_warmup_ratio` of `unialign.fit`. Their binary matching term
    requires an encoder over token pairs and is not part of this loss.

    Args:
        anchor: a modality; text in the paper.
        form: `area`, as in the paper, or `squared`: twice the squared area, as in the released code.
        temperature: tau > 0, the initial value if it is learnable; 0.07 as published.
        temperature_mode: `learnable` within `temperature_bounds`, as published, or `fixed`.
        label_smoothing: 0.1 as published.
        eps: added under the square root of `area`; default 1e-8 in float32 and 1e-14 in float64.
    """

    name = "triangle"
    display_name = "Triangle"
    # The area is 0 if two corners coincide, regardless of the third: the authors continue a contrastive model.
    initialization = "contrastive"
    needs_anchor = "modality"

    def __init__(
        self,
        anchor: str,
        *,
        form: TriangleForm = "area",
        temperature: float = 0.07,
        temperature_mode: Mode = "learnable",
        temperature_bounds: tuple[float, float] = (0.01, 1.0),
        label_smoothing: float = 0.1,
        eps: float | None = None,
    ) -> None:
        super().__init__()
        check_tuple_anchor(anchor, self.name)
        check_choice("form", form, get_args(TriangleForm))
        if eps is not None:
            check_nonnegative("eps", eps)
        self.anchor, self.form, self.eps = anchor, form, eps
        check_label_smoothing(label_smoothing)
        self.label_smoothing = float(label_smoothing)
        self.temperature = Temperature(temperature, mode=temperature_mode, bounds=temperature_bounds)

    def terms(self, batch: Batch) -> dict[str, LossTerm]:
        if len(batch.names) != 3:
            raise ShapeError(
                f"triangle needs exactly 3 modalities, one per corner, got {len(batch.names)}: "
                f"{list(batch.names)}; choose 3 of them, or use gram, which supports any number"
            )
        a = batch.index(self.anchor)
        complete_B = batch.present_MB.all(0)
        if not bool(complete_B.any()):
            return {}
        eps = default_volume_eps(batch.z_MBD.dtype) if self.eps is None else self.eps
        value = area_contrast(
            batch,
            anchor=a,
            items_B=complete_B,
            form=self.form,
            temperature=self.temperature(),
            label_smoothing=self.label_smoothing,
            eps=eps,
        )
        return {"area_contrast": LossTerm(value, 1.0)}
