"""UniAlign: uniformity within each modality and alignment to one anchor (arXiv 2602.09507).

Shapes: `M` modalities, `B` items.
"""

from collections.abc import Callable, Mapping
from copy import copy
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from unialign._checks import check_choice
from unialign._pair_keys import pair_name
from unialign.batch import Batch
from unialign.errors import ConfigError
from unialign.functional import (
    Distance,
    PartitionPositive,
    Reduction,
    StopGradient,
    block_uniformities,
    cross_log_partition,
    matched_alignment_scale,
    unit_alignment,
    unit_centroids,
    unit_uniformity,
    unit_volumes,
)
from unialign.losses._call_inputs import TEMPERATURE_ARGUMENTS, inputs_of
from unialign.losses._kernel_temperature import RateGradient
from unialign.losses._modality_temperature import ModalityTemperature, geometric_mean, known_name
from unialign.losses._modality_terms import defined_values, modality_pairs, pair_values
from unialign.losses._narrow_cone import share_within
from unialign.losses._objective import LossTerm, Objective, mean_terms
from unialign.losses._presets import PRESETS
from unialign.losses._similarity import SimilarityScale
from unialign.losses._unialign_options import Weighting, check_unialign, supports_mix
from unialign.losses._weighted_repulsion import weighted_kinds, weighted_repulsion
from unialign.ops import WANG_ISOLA_T, Kernel, select_items


class UniAlign(Objective):
    """Uniformity within each modality and alignment of true pairs (paper Eqs. 9 to 13), and its family.

    The loss is uniformity_weight * sum_m w_m U(Z^m) + alignment_weight * scale * L_align + tuple terms. `preset` sets
    all options that are not given; see `unialign.losses.PRESETS`.

    Args:
        anchor: the modality that the others align to, `"all"` (all pairs), `"centroid"` (normalized mean of the
            tuple) or `"leave_one_out"` (normalized mean of the other modalities of the tuple).
        preset: `adaptive`, `balanced`, `paper`, `infonce_matched`, `frozen_anchor`, `symmetric` or `geodesic`, without
            cross-modal negatives as in the paper; or, with cross-modal negatives, `small_batch`, `joint_queries`,
            `classes` or `retrieval`, which are named by what they are for. The last three have a `similarity_scale`.
            `symmetric` and these four set the anchor. `adaptive` is `balanced` unless the rows of a modality are in a
            narrow cone (see `partition_mix`).
        kernel: `clip`, `gaussian` (as printed), `wang_isola`, `geodesic`.
        temperature: tau of the uniformity kernel and of the `"matched"` alignment scale. The temperature controls the
            hardness, whereas the two weights control the balance. A mapping gives every modality its tau. A uniformity
            uses the tau of its modality, a pair uses the geometric mean of the tau of its two modalities, and the
            centroids use the geometric mean over all modalities. The term `alignment` then contains the `"matched"`
            scales of its pairs.
        reduction: `mean_log` (Eq. 9), or `outer_log` with exponent M - 1, as in the Hölder divergence.
        weighting: w_m. `mean` is 1 / (number of modalities with a defined uniformity); `sum` is 1; `infonce_matched` is
            1/2 for the anchor and 1 / (2 (M - 1)) for other modalities; `exclude_anchor` is the mean without the
            anchor.
        partition_mix: beta in [0, 1], our extension. The repulsion is beta times the uniformities within modalities
            plus 1 - beta times the mean, over the pairs of the alignment, of InfoNCE's log-partition between two
            modalities: 1/2 mean_i [ log sum_k kappa(x_i, y_k) + log sum_k kappa(y_i, x_k) ], including the positive. A
            beta of 1 is UniAlign; a beta of 0 with `clip`, `"matched"` and unit weights is exactly InfoNCE if all
            modalities are present. A pair uses the rows that have both modalities. Values below 1 require an anchor
            other than `"centroid"`, `mean` or `infonce_matched` weights, `mean_log`, no stop_gradient, and one geometry
            for kernel and distance. `"auto"` sets beta for each batch from the largest mean cosine between different
            items of a modality: 1 if it is at most 0.25, 0 if it is at least 0.5, and linear between, so that encoders
            with random weights, whose outputs are in a narrow cone, do not collapse. Beta is a constant in the backward
            pass. By default that of the preset, but the `"auto"` of `adaptive` is 1 if the other options do not support
            values below 1.
        partition_positive: whether the sums over k of `partition_mix` contain the true pair. With `excluded`,
            attraction does not depend on repulsion, as in decoupled contrastive learning (Yeh et al. 2022).
        similarity_scale: s of the weights w_ij = exp(-s max(0, cos(x_i, x_j))) of the negatives in the sums of both
            partitions, where x are the features passed to the call as `similarity`. The weight of a pair of modalities
            is the geometric mean of both weights. A large s is a soft form of `ids`: items with similar features do not
            repel each other. A mapping gives every modality its s, 0 by default. Our extension; `fit` passes its
            standardized inputs.
        uniformity_weight: lambda_uni, the weight of both partitions. With `balanced`, the space collapses at weights
            below about 0.1.
        alignment_weight: lambda_align.
        alignment_scale: `"matched"` (1 / (2 tau) for `clip`, 1 / (2 tau^2) for `gaussian` and `geodesic`), or a number.
        distance: `euclidean` or `geodesic` distance of true pairs.
        stop_gradient: `anchor` detaches the anchor (or mean) in the alignment.
        centroid_weight: weight of U(C), with C the centroids of items with at least two modalities.
        centroid_temperature: tau of the centroid term; `temperature` by default.
        volume_weight: weight of the mean Gram volume of items with at least two modalities. Minimizing the volume
            regularizes tuples toward linear dependence but does not align them by itself.
        volume_eps: floor of the squared volume, added under the square root; 0 by default, see `GRAM`.
    """

    name = "unialign"
    display_name = "UniAlign"
    temperature_kind = "cosines"
    call_arguments = (*TEMPERATURE_ARGUMENTS, "similarity")

    def __init__(
        self,
        anchor: str = "all",
        *,
        preset: str = "adaptive",
        kernel: Kernel | None = None,
        temperature: float | Mapping[str, float] | None = None,
        reduction: Reduction | None = None,
        weighting: Weighting | None = None,
        partition_mix: float | Literal["auto"] | None = None,
        partition_positive: PartitionPositive | None = None,
        similarity_scale: SimilarityScale | None = None,
        uniformity_weight: float = 1.0,
        alignment_weight: float | None = None,
        alignment_scale: float | Literal["matched"] | None = None,
        distance: Distance | None = None,
        stop_gradient: StopGradient | None = None,
        centroid_weight: float | None = None,
        centroid_temperature: float | None = None,
        volume_weight: float | None = None,
        volume_eps: float | None = None,
    ) -> None:
        super().__init__()
        check_choice("preset", preset, PRESETS)
        defaults = PRESETS[preset]

        def choose(option: str, given: Any) -> Any:
            return defaults[option] if given is None else given

        self.preset = preset
        self.anchor: str = defaults.get("anchor", anchor)
        self.kernel: Kernel = choose("kernel", kernel)
        chosen = choose("temperature", temperature)
        self.temperature: float | dict[str, float] = dict(chosen) if isinstance(chosen, Mapping) else chosen
        self.reduction = reduction
        self.weighting: Weighting = choose("weighting", weighting)
        self.partition_positive: PartitionPositive = choose("partition_positive", partition_positive)
        scale = choose("similarity_scale", similarity_scale)
        self.similarity_scale: SimilarityScale = dict(scale) if isinstance(scale, Mapping) else scale
        self.uniformity_weight = uniformity_weight
        self.alignment_weight: float = choose("alignment_weight", alignment_weight)
        self.alignment_scale: float | Literal["matched"] = choose("alignment_scale", alignment_scale)
        self.distance: Distance = choose("distance", distance)
        self.stop_gradient: StopGradient = choose("stop_gradient", stop_gradient)
        self.centroid_weight: float = choose("centroid_weight", centroid_weight)
        self.centroid_temperature = centroid_temperature
        self.volume_weight: float = choose("volume_weight", volume_weight)
        self.volume_eps = volume_eps
        mix = choose("partition_mix", partition_mix)
        by_support = partition_mix is None and mix == "auto"
        self.partition_mix: float | Literal["auto"] = 1.0 if by_support else mix
        check_unialign(self.get_config())
        if by_support and supports_mix(self.get_config()):
            self.partition_mix = mix

    def terms(self, batch: Batch) -> dict[str, LossTerm]:
        inputs = inputs_of(batch)
        if inputs.temperature is not None or inputs.scale is not None:
            return self._terms_at(batch, inputs.tau(lambda: self._tau(batch)))
        return self._all_terms(batch)

    def cosine_temperature(self, batch: Batch) -> Tensor | float | ModalityTemperature:
        """Return the temperature whose softmax of cosines has the matched alignment scale of the kernel."""
        inputs, power = inputs_of(batch), 1 if self.kernel == "clip" else 2
        if self.kernel == "wang_isola":
            return 1 / (2 * WANG_ISOLA_T)
        if isinstance(self.temperature, dict) and inputs.temperature is None and inputs.scale is None:
            return ModalityTemperature({name: tau**power for name, tau in self.temperature.items()})
        return inputs.tau(lambda: self._tau(batch)) ** power

    def _tau(self, batch: Batch, *modalities: int) -> float:
        """Return the geometric mean of the temperatures."""
        if not isinstance(self.temperature, dict):
            return self.temperature
        names = [batch.names[m] for m in modalities or range(len(batch.names))]
        return geometric_mean(self.temperature[known_name(name, self.temperature)] for name in names)

    def _all_terms(self, batch: Batch, learned: Tensor | None = None) -> dict[str, LossTerm]:
        """`learned` is a temperature with a gradient, equal to that of the objective; only weighted sums use it."""
        within = share_within(batch) if self.partition_mix == "auto" else self.partition_mix
        repulsion = self._repulsion_terms(batch, within, learned)
        return repulsion | self._alignment_terms(batch) | self._tuple_terms(batch)

    def _terms_at(self, batch: Batch, temperature: Tensor | float) -> dict[str, LossTerm]:
        if self.kernel == "wang_isola":
            raise ConfigError("unialign with kernel='wang_isola' has no temperature; use kernel='clip'")
        other = copy(self)
        other.temperature = float(temperature.detach() if isinstance(temperature, Tensor) else temperature)
        if not (isinstance(temperature, Tensor) and temperature.requires_grad and torch.is_grad_enabled()):
            return other._all_terms(batch)
        rate = RateGradient(self.kernel, temperature, batch.shard)
        terms, weighted = (
            other._all_terms(batch, temperature),
            weighted_kinds(self.similarity_scale, self.partition_positive),
        )
        for name, (value, weight) in terms.items():
            if name.partition("/")[0] in weighted:
                continue
            compute, rows = other._kernel_sum(batch, name)
            if rows:
                terms[name] = LossTerm(rate.add(value, compute, rows), weight)
        if "alignment" in terms and self.alignment_scale == "matched":
            # log kappa = -(rate / 2) |x - y|^2.
            value = terms["alignment"].value
            terms["alignment"] = LossTerm(value, (self.alignment_weight * rate.rate / 2).to(value))
        return terms

    def _kernel_sum(self, batch: Batch, term: str) -> tuple[Callable[..., Tensor], list[Tensor]]:
        """Return a term as a function of rows; no rows if it does not depend on the temperature."""
        kind, _, name = term.partition("/")
        if kind == "uniformity":
            m = batch.index(name)
            return lambda z_BD: self._uniformity(batch, z_BD, batch.present_MB[m], self._tau(batch, m))[0], [
                batch.rows(m)
            ]
        if kind == "centroid" and self.centroid_temperature is None:
            centroid_BD, defined_B = unit_centroids(batch)
            tuples_B = defined_B & (batch.present_MB.sum(0) >= 2)
            return lambda z_BD: self._uniformity(batch, z_BD, tuples_B, self._tau(batch))[0], [centroid_BD]
        for m, n in modality_pairs(batch, self.anchor) if kind == "partition" else ():
            if pair_name(batch.names[m], batch.names[n]) == name:
                both_B = batch.present_MB[m] & batch.present_MB[n]
                partition = partial(
                    cross_log_partition,
                    selection=select_items(batch, both_B),
                    kernel=self.kernel,
                    temperature=self._tau(batch, m, n),
                )
                return lambda *rows: partition(*rows)[0], [batch.rows(m), batch.rows(n)]  # noqa: B023
        return torch.sum, []

    def _repulsion_terms(self, batch: Batch, share_within: float, learned: Tensor | None) -> dict[str, LossTerm]:
        within, across = share_within * self.uniformity_weight, (1 - share_within) * self.uniformity_weight
        names = {
            m: name for m, name in enumerate(batch.names) if self.weighting != "exclude_anchor" or name != self.anchor
        }
        pairs = modality_pairs(batch, self.anchor) if across != 0 else []
        kinds = weighted_kinds(self.similarity_scale, self.partition_positive)
        of_kinds = list(names) if "uniformity" in kinds and within != 0 else [], pairs if "partition" in kinds else []
        tau_pairs = [(m, m) for m in of_kinds[0]] + of_kinds[1]
        uniformities, partitions = weighted_repulsion(
            batch,
            *of_kinds,
            kernel=self.kernel,
            temperatures=[self._tau(batch, m, n) if learned is None else learned for m, n in tau_pairs],
            scale=self.similarity_scale,
            positive=self.partition_positive,
        )
        if "uniformity" not in kinds and within != 0:
            uniformities = self._uniformities(batch, names)
        if "partition" not in kinds and across != 0:
            partitions = self._partitions(batch, pairs)
        terms = {
            f"uniformity/{name}": LossTerm(value, within * self._modality_weight(name, batch, len(uniformities)))
            for name, value in uniformities.items()
        }
        return terms | mean_terms(partitions, across)

    def _uniformities(self, batch: Batch, names: dict[int, str]) -> dict[str, Tensor]:
        values = None
        if self._order(batch) == 1 and not isinstance(self.temperature, dict):
            values = block_uniformities(
                batch, list(names), kernel=self.kernel, temperature=self.temperature, reduction=self.reduction
            )
        if values is not None:
            return dict(zip(names.values(), values, strict=True))
        return defined_values(
            {
                name: self._uniformity(batch, batch.rows(m), batch.present_MB[m], self._tau(batch, m))
                for m, name in names.items()
            }
        )

    def _order(self, batch: Batch) -> int:
        return len(batch.names) - 1 if self.reduction == "outer_log" else 1

    def _uniformity(self, batch: Batch, z_BD: Tensor, present_B: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        return unit_uniformity(
            z_BD,
            select_items(batch, present_B),
            kernel=self.kernel,
            temperature=temperature,
            reduction=self.reduction,
            order=self._order(batch),
        )

    def _modality_weight(self, name: str, batch: Batch, defined: int) -> float:
        if self.weighting == "sum":
            return 1.0
        if self.weighting == "infonce_matched":
            return 0.5 if name == self.anchor else 0.5 / (len(batch.names) - 1)
        return 1 / defined

    def _partitions(self, batch: Batch, pairs: list[tuple[int, int]]) -> dict[str, Tensor]:
        values: dict[str, tuple[Tensor, Tensor]] = {}
        for m, n in pairs:
            options = {"kernel": self.kernel, "temperature": self._tau(batch, m, n)}
            values |= pair_values(cross_log_partition, batch, [(m, n)], "partition", **options)
        return defined_values(values)

    def _alignment_terms(self, batch: Batch) -> dict[str, LossTerm]:
        scale: float = 1.0 if self.alignment_scale == "matched" else self.alignment_scale
        scales = None
        if self.alignment_scale == "matched" and isinstance(self.temperature, dict):
            scales = self._pair_scales(batch)
        elif self.alignment_scale == "matched":
            scale = matched_alignment_scale(self.kernel, self._tau(batch))
        value, defined = unit_alignment(
            batch, anchor=self.anchor, distance=self.distance, stop_gradient=self.stop_gradient, scales=scales
        )
        if self.alignment_weight == 0 or not bool(defined):
            return {}
        return {"alignment": LossTerm(value, self.alignment_weight * scale)}

    def _pair_scales(self, batch: Batch) -> list[float]:
        if self.anchor in ("centroid", "leave_one_out"):
            everything = self._tau(batch)
            taus = [geometric_mean([self._tau(batch, m), everything]) for m in range(len(batch.names))]
        else:
            taus = [self._tau(batch, m, n) for m, n in modality_pairs(batch, self.anchor)]
        return [matched_alignment_scale(self.kernel, tau) for tau in taus]

    def _tuple_terms(self, batch: Batch) -> dict[str, LossTerm]:
        terms: dict[str, LossTerm] = {}
        tuples_B = batch.present_MB.sum(0) >= 2
        if self.centroid_weight != 0:
            centroid_BD, defined_B = unit_centroids(batch)
            temperature = self._tau(batch) if self.centroid_temperature is None else self.centroid_temperature
            value, defined = self._uniformity(batch, centroid_BD, tuples_B & defined_B, temperature)
            if bool(defined):
                terms["centroid"] = LossTerm(value, self.centroid_weight)
        if self.volume_weight != 0 and bool(tuples_B.any()):
            volume_B = unit_volumes(batch, eps=self.volume_eps or 0.0)
            terms["volume"] = LossTerm(volume_B[tuples_B].mean(), self.volume_weight)
        return terms
