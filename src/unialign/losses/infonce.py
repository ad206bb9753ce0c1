"""Pairwise InfoNCE, as in ImageBind (anchor pairs) and most toolkits (all pairs)."""

from typing import Literal, get_args

from unialign._checks import check_choice
from unialign.batch import Batch
from unialign.errors import ConfigError
from unialign.losses._bounded_parameter import Mode, Temperature
from unialign.losses._modality_terms import modality_pairs, pair_contrasts
from unialign.losses._objective import LossTerm, Objective, mean_terms
from unialign.losses._options import check_label_smoothing, check_pair_anchor

Pairs = Literal["anchor", "all"]


class InfoNCE(Objective):
    """Symmetric InfoNCE, averaged over pairs of modalities (Oord et al. 2018; Girdhar et al. 2023; paper Eq. 1).

    (1/P) sum over pairs (m, n) of [ CE(Z^m Z^nT / tau) + CE(Z^n Z^mT / tau) ] / 2, with the diagonal as target. Each
    pair uses the rows that have both modalities; pairs without such rows are excluded from the mean.

    Args:
        anchor: a modality, for `pairs="anchor"`; `"all"` is the same as `pairs="all"`.
        pairs: `anchor` (the M - 1 pairs that contain it) or `all` (all M (M - 1) / 2 pairs). Default: set by `anchor`.
        temperature: tau > 0, the initial value if it is learnable.
        temperature_mode: `fixed`, or `learnable` within `temperature_bounds`.
        temperature_bounds: lowest and highest tau; 0.01 is CLIP's cap of 100 on 1 / tau.
        label_smoothing: in [0, 1), spread evenly over the keys of a query.
    """

    name = "infonce"
    display_name = "InfoNCE"
    temperature_kind = "cosines"

    def __init__(
        self,
        anchor: str | None = None,
        *,
        pairs: Pairs | None = None,
        temperature: float = 0.07,
        temperature_mode: Mode = "fixed",
        temperature_bounds: tuple[float, float] = (0.01, 1.0),
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        if anchor is not None:
            check_pair_anchor(anchor, self.name)
        if pairs is None:
            pairs = "all" if anchor in (None, "all") else "anchor"
        check_choice("pairs", pairs, get_args(Pairs))
        if pairs == "anchor" and anchor in (None, "all"):
            raise ConfigError("pairs='anchor' needs anchor='<a modality>'")
        self.anchor, self.pairs = anchor, pairs
        check_label_smoothing(label_smoothing)
        self.label_smoothing = float(label_smoothing)
        self.temperature = Temperature(temperature, mode=temperature_mode, bounds=temperature_bounds)

    def terms(self, batch: Batch) -> dict[str, LossTerm]:
        pairs = modality_pairs(batch, str(self.anchor) if self.pairs == "anchor" else "all")
        values = pair_contrasts(batch, pairs, temperature=self.temperature(), label_smoothing=self.label_smoothing)
        return mean_terms(values)
