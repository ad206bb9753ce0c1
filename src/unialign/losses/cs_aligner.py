"""CS-Aligner: InfoNCE plus a divergence between distributions (Yin et al., arXiv 2502.17028)."""

from collections.abc import Mapping
from typing import Literal, get_args

from torch import Tensor

from unialign._checks import check_choice, check_nonnegative, check_temperature
from unialign._pair_keys import pair_name
from unialign.batch import Batch
from unialign.functional import median_bandwidth_of, unit_cauchy_schwarz, unit_holder, unit_mmd2
from unialign.losses._bounded_parameter import Mode
from unialign.losses._contrast_objective import PairContrast
from unialign.losses._modality_terms import Pair, modality_pairs
from unialign.losses._objective import LossTerm, mean_terms
from unialign.ops import shard_layout

Divergence = Literal["cauchy_schwarz", "mmd", "holder"]


class CSAligner(PairContrast):
    """InfoNCE plus the Cauchy-Schwarz divergence D_CS between modalities (arXiv 2502.17028).

    The loss is contrast_weight * InfoNCE + divergence_weight * mean over the same pairs of D_CS. D_CS compares two
    unpaired distributions, so it applies to any two modalities with rows, even if no item has both. The paper has one
    pair of modalities; the mean over pairs is our extension. The paper specifies lambda = 1 but neither bandwidth nor
    temperature; the median heuristic and CLIP's 0.07 are our choices.

    Args:
        anchor: a modality (the M - 1 pairs that contain it) or `"all"` (all pairs).
        temperature, temperature_mode, temperature_bounds: see `InfoNCE`.
        contrast_weight: 0 leaves only the divergence, which can be 0 without aligned pairs.
        divergence_weight: lambda, 1 as published.
        divergence: `cauchy_schwarz`, as published; `mmd`, the biased MMD^2 of each pair; or `holder`, the pooled Hölder
            divergence of all modalities jointly, for any anchor.
        bandwidth: tau of the Gaussian kernel exp(-|x - y|^2 / (2 tau^2)), or `"median"`, the median distance between
            rows of the batch over all modalities, without gradient.
    """

    name = "cs_aligner"
    display_name = "CS-Aligner"

    def __init__(
        self,
        anchor: str = "all",
        *,
        temperature: float | Mapping[str, float] = 0.07,
        temperature_mode: Mode = "fixed",
        temperature_bounds: tuple[float, float] = (0.01, 1.0),
        contrast_weight: float = 1.0,
        divergence_weight: float = 1.0,
        divergence: Divergence = "cauchy_schwarz",
        bandwidth: float | Literal["median"] = "median",
    ) -> None:
        super().__init__(anchor, temperature, temperature_mode, temperature_bounds, contrast_weight)
        check_nonnegative("divergence_weight", divergence_weight)
        check_choice("divergence", divergence, get_args(Divergence))
        if isinstance(bandwidth, str):
            check_choice("bandwidth", bandwidth, ("median",))
        else:
            check_temperature(bandwidth, "bandwidth")
        self.divergence, self.divergence_weight = divergence, float(divergence_weight)
        self.bandwidth: float | Literal["median"] = bandwidth

    def terms(self, batch: Batch) -> dict[str, LossTerm]:
        pairs = modality_pairs(batch, self.anchor)
        terms = self.contrast_terms(batch, pairs)
        if self.divergence_weight != 0:
            terms |= mean_terms(self._divergences(batch, pairs), self.divergence_weight)
        return terms

    def _divergences(self, batch: Batch, pairs: list[Pair]) -> dict[str, Tensor]:
        rows = [batch.rows(m)[batch.present_MB[m]] for m in range(len(batch.names))]
        bandwidth = median_bandwidth_of(rows) if self.bandwidth == "median" else self.bandwidth
        if self.divergence == "holder":
            if sum(len(z_ND) > 0 for z_ND in rows) < 2:
                return {}
            return {"divergence": unit_holder(batch, bandwidth=bandwidth, estimator="pooled", reference=None)}
        measure = unit_cauchy_schwarz if self.divergence == "cauchy_schwarz" else unit_mmd2
        shard = batch.shard
        layouts = None if shard is None else [shard_layout(present_B, shard) for present_B in batch.present_MB]
        return {
            f"divergence/{pair_name(batch.names[m], batch.names[n])}": measure(
                rows[m], rows[n], bandwidth=bandwidth, layouts=None if layouts is None else (layouts[m], layouts[n])
            )
            for m, n in pairs
            if len(rows[m]) > 0 and len(rows[n]) > 0
        }
