"""Pairwise sigmoid loss of SigLIP (Zhai et al. 2023) over pairs of modalities."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any, Literal, cast, get_args

from torch import Tensor, nn

from unialign._checks import check_choice
from unialign.batch import Batch
from unialign.errors import ConfigError
from unialign.functional import block_sigmoids, sigmoid_contrast
from unialign.losses._bounded_parameter import BoundedParameter, Mode
from unialign.losses._call_inputs import TEMPERATURE_ARGUMENTS, inputs_of
from unialign.losses._modality_terms import modality_pairs, name_pairs, pair_values
from unialign.losses._objective import LossTerm, Objective
from unialign.losses._options import check_pair_anchor
from unialign.losses._pair_weights import check_pair_weights, mean_over_pairs
from unialign.losses._similarity import SimilarityScale, check_similarity_scale, scaled_rows

Sharing = Literal["shared", "per_pair"]


class Sigmoid(Objective):
    """Pairwise sigmoid loss (SigLIP, Eq. 1, for one pair of modalities), averaged over pairs of modalities.

    The loss of a pair is -(1/B) sum_ij log sigma(y_ij (scale * cos_ij + bias)), with y = +1 for true pairs and -1 for
    other pairs, over the B items with both modalities; pairs without such items are excluded from the mean. Same-id
    items are not negatives and are excluded from the sum.

    Args:
        anchor: a modality (the M - 1 pairs that contain it) or `"all"` (all pairs).
        scale: initial value, 10 as published.
        bias: initial value, -10 as published. With this value, nearly every pair is predicted to be negative, which
            suits a batch of 22,000; for small batches, -log(B - 1) is balanced.
        mode: `learnable` scale and bias, as published, or `fixed`.
        scale_bounds, bias_bounds: bounds of learnable values. The paper has no bounds; released models have scales near
            112.
        sharing: `shared`, one scale and bias for all pairs, or `per_pair`, which needs `modalities`.
        modalities: names of all modalities, for `per_pair`.
        pair_weights: weights of the mean over pairs, as in `InfoNCE`.
        similarity_scale: s of the weights exp(-s max(0, cos)) of negatives with similar features, as in `UniAlign`;
            they multiply the losses of the negative pairs.
    """

    name = "sigmoid"
    display_name = "Sigmoid"
    call_arguments = (*TEMPERATURE_ARGUMENTS, "logit_bias", "similarity")

    def __init__(
        self,
        anchor: str = "all",
        *,
        scale: float = 10.0,
        bias: float = -10.0,
        mode: Mode = "learnable",
        scale_bounds: tuple[float, float] = (1.0, 200.0),
        bias_bounds: tuple[float, float] = (-50.0, 50.0),
        sharing: Sharing = "shared",
        modalities: list[str] | tuple[str, ...] | None = None,
        pair_weights: Mapping[str, float] | None = None,
        similarity_scale: SimilarityScale = 0.0,
    ) -> None:
        super().__init__()
        check_pair_anchor(anchor, self.name)
        check_choice("mode", mode, get_args(Mode))
        check_choice("sharing", sharing, get_args(Sharing))
        self.anchor, self.mode, self.sharing = anchor, mode, sharing
        self.modalities = _check_modalities(modalities, anchor) if sharing == "per_pair" else None
        if sharing == "shared" and modalities is not None:
            raise ConfigError("modalities is only for sharing='per_pair'; omit modalities or use sharing='per_pair'")
        check_pair_weights(pair_weights)
        self.pair_weights = None if pair_weights is None else dict(pair_weights)
        check_similarity_scale(similarity_scale)
        self.similarity_scale: SimilarityScale = (
            dict(similarity_scale) if isinstance(similarity_scale, Mapping) else similarity_scale
        )
        # One scale and bias for each pair, or one for all pairs.
        self.logits = nn.ModuleList(
            nn.ModuleDict(
                {
                    "scale": BoundedParameter("scale", scale, mode=mode, bounds=scale_bounds, spacing="log"),
                    "bias": BoundedParameter("bias", bias, mode=mode, bounds=bias_bounds, spacing="linear"),
                }
            )
            for _ in range(len(self._pairs()) or 1)
        )
        self.scale, self.scale_bounds = float(scale), [float(bound) for bound in scale_bounds]
        self.bias, self.bias_bounds = float(bias), [float(bound) for bound in bias_bounds]

    def terms(self, batch: Batch) -> dict[str, LossTerm]:
        values: dict[str, Tensor] = {}
        inputs, pairs = inputs_of(batch), modality_pairs(batch, self.anchor)
        features = scaled_rows(batch, inputs.similarity, self.similarity_scale)
        for group in [pairs] if self.modalities is None else [[pair] for pair in pairs]:
            own_scale, own_bias = self._logit(*(batch.names[m] for m in group[0]))
            scale, bias = inputs.multiplier(own_scale), own_bias() if inputs.bias is None else inputs.bias
            computed = None if features else block_sigmoids(batch, group, scale=scale, bias=bias)
            if computed is not None:
                values |= name_pairs(batch, group, "sigmoid", computed)
                continue
            for pair in group:
                rows = [features[name] for name in (batch.names[m] for m in pair) if name in features]
                options = {"scale": scale, "bias": bias, "features": rows}
                values |= pair_values(sigmoid_contrast, batch, [pair], "sigmoid", **options)
        return mean_over_pairs(batch, pairs, values, "sigmoid", self.pair_weights)

    def scale_and_bias(self, first: str | None = None, second: str | None = None) -> tuple[float, float]:
        """Return the current scale and bias; for `per_pair`, those of the given pair of modalities."""
        scale, bias = self._logit(first, second)
        return scale.value(), bias.value()

    def _pairs(self) -> list[frozenset[str]]:
        pairs = [frozenset(pair) for pair in combinations(self.modalities or (), 2)]
        return [pair for pair in pairs if self.anchor == "all" or self.anchor in pair]

    def _logit(self, first: str | None, second: str | None) -> tuple[BoundedParameter, BoundedParameter]:
        index = 0
        if self.modalities is not None:
            pairs = self._pairs()
            if {first, second} not in pairs:
                raise ConfigError(
                    f"sigmoid has no scale and bias for the pair {first!r}, {second!r}; it was created with "
                    f"modalities={self.modalities} and anchor={self.anchor!r}"
                )
            index = pairs.index(frozenset((str(first), str(second))))
        scale, bias = self.logits[index].children()
        return cast(BoundedParameter, scale), cast(BoundedParameter, bias)


def _check_modalities(modalities: Any, anchor: str) -> list[str]:
    if not (isinstance(modalities, list | tuple) and all(isinstance(name, str) for name in modalities)):
        raise ConfigError(f"sharing='per_pair' needs modalities=[names of all modalities], got {modalities!r}")
    if len(set(modalities)) != len(modalities) or len(modalities) < 2:
        raise ConfigError(f"modalities must be at least 2 different names, got {list(modalities)}")
    if anchor != "all" and anchor not in modalities:
        raise ConfigError(f"anchor {anchor!r} is not one of modalities={list(modalities)}")
    return list(modalities)
