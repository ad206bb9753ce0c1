"""TRIANGLE: contrastive loss of triangle areas (Cicchetti et al. 2025)."""

from typing import get_args

from unialign._checks import check_choice
from unialign.batch import Batch
from unialign.errors import ShapeError
from unialign.functional import area_contrast
from unialign.losses._bounded_parameter import Mode
from unialign.losses._contrast_objective import TupleContrast
from unialign.losses._objective import LossTerm
from unialign.ops import TriangleForm


class Triangle(TupleContrast):
    """Symmetric InfoNCE with the logits -A(anchor of i, the two other modalities of j) / tau, for exactly 3 modalities.

    A is the area of the triangle with the three unit vectors as corners. Rows and columns are the complete items. The
    area is 0 if two corners coincide, regardless of the third, so TRIANGLE alone does not align all three modalities.
    The authors start from a contrastively trained model; see `infonce_warmup_ratio` of `unialign.fit`. Their binary
    matching term requires an encoder over token pairs and is not part of this loss.

    Args:
        anchor: a modality; text in the paper.
        form: `area`, as in the paper, or `squared`, twice the squared area, as in the released code.
        temperature: tau > 0, the initial value if it is learnable; 0.07 as published.
        temperature_mode: `learnable` within `temperature_bounds`, as published, or `fixed`.
        label_smoothing: 0.1 as published.
        eps: added under the square root of `area`; 0 by default. The gradient is finite for any `eps`.
    """

    name = "triangle"
    display_name = "Triangle"

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
        super().__init__(
            anchor,
            temperature=temperature,
            temperature_mode=temperature_mode,
            temperature_bounds=temperature_bounds,
            label_smoothing=label_smoothing,
            eps=eps,
        )
        check_choice("form", form, get_args(TriangleForm))
        self.form: TriangleForm = form

    def terms(self, batch: Batch) -> dict[str, LossTerm]:
        if len(batch.names) != 3:
            raise ShapeError(
                f"triangle needs exactly 3 modalities, one per corner, got {len(batch.names)}: "
                f"{list(batch.names)}; choose 3 of them, or use gram, which supports any number"
            )
        return self.contrast_terms("area_contrast", area_contrast, batch, batch.present_MB.all(0), form=self.form)
