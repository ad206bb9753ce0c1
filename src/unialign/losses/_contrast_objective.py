"""Base classes of objectives that contrast pairs of modalities, or an anchor with tuples of others.

Shapes: `M` modalities, `B` items.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from unialign._checks import check_nonnegative, check_text
from unialign.batch import Batch
from unialign.errors import ConfigError
from unialign.losses._bounded_parameter import Mode, Temperature
from unialign.losses._call_inputs import TEMPERATURE_ARGUMENTS
from unialign.losses._modality_temperature import make_temperature
from unialign.losses._modality_terms import Pair, pair_contrasts
from unialign.losses._objective import LossTerm, Objective, mean_terms
from unialign.losses._options import check_label_smoothing, check_pair_anchor
from unialign.ops import select_items


class PairContrast(Objective):
    """Add terms to `contrast_weight` times InfoNCE over pairs of modalities."""

    temperature_kind = "cosines"
    call_arguments = TEMPERATURE_ARGUMENTS

    def __init__(
        self,
        anchor: str,
        temperature: float | Mapping[str, float],
        mode: Mode,
        bounds: tuple[float, float],
        contrast_weight: float,
    ) -> None:
        super().__init__()
        check_pair_anchor(anchor, self.name)
        check_nonnegative("contrast_weight", contrast_weight)
        self.anchor, self.contrast_weight = anchor, float(contrast_weight)
        self.temperature = make_temperature(temperature, mode=mode, bounds=bounds)

    def contrast_terms(self, batch: Batch, pairs: list[Pair]) -> dict[str, LossTerm]:
        if self.contrast_weight == 0:
            return {}
        temperature = self.pair_temperatures(batch, pairs)
        return mean_terms(pair_contrasts(batch, pairs, temperature=temperature), self.contrast_weight)


class TupleContrast(Objective):
    """Symmetric InfoNCE whose logits score the anchor of item i with the other modalities of item j."""

    # Unaligned tuples can also have optimal scores, so the authors start from a contrastively trained model.
    initialization = "contrastive"
    needs_anchor = "modality"
    call_arguments = TEMPERATURE_ARGUMENTS

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
        check_text("anchor", anchor)
        if anchor in ("all", "centroid", "leave_one_out"):
            raise ConfigError(
                f"{self.name} contrasts an anchor modality with tuples of the others, but anchor={anchor!r} "
                "is not a modality; pass the name of a modality"
            )
        if eps is not None:
            check_nonnegative("eps", eps)
        self.anchor, self.eps = anchor, eps
        check_label_smoothing(label_smoothing)
        self.label_smoothing = float(label_smoothing)
        self.temperature = Temperature(temperature, mode=temperature_mode, bounds=temperature_bounds)

    def contrast_terms(
        self, term: str, function: Callable[..., Tensor], batch: Batch, items_B: Tensor, **options: Any
    ) -> dict[str, LossTerm]:
        anchor = batch.index(self.anchor)
        if not bool(items_B.any()):
            return {}
        value = function(
            batch,
            select_items(batch, items_B),
            anchor=anchor,
            temperature=self.call_temperature(batch),
            label_smoothing=self.label_smoothing,
            eps=self.eps or 0.0,
            **options,
        )
        return {term: LossTerm(value, 1.0)}
