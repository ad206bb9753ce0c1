"""Pairwise InfoNCE, as in ImageBind (anchor pairs) and most toolkits (all pairs)."""

from collections.abc import Mapping
from typing import Literal, get_args

from torch import Tensor

from unialign._checks import check_choice, check_number
from unialign.batch import Batch
from unialign.errors import ConfigError
from unialign.functional import weighted_partitions
from unialign.losses._bounded_parameter import Mode
from unialign.losses._call_inputs import TEMPERATURE_ARGUMENTS, inputs_of
from unialign.losses._extended_contrast import Direction, extended_contrasts
from unialign.losses._modality_temperature import make_temperature
from unialign.losses._modality_terms import Pair, modality_pairs, name_pairs, pair_contrasts
from unialign.losses._objective import LossTerm, Objective
from unialign.losses._options import check_label_smoothing, check_pair_anchor
from unialign.losses._pair_weights import check_pair_weights, mean_over_pairs
from unialign.losses._similarity import SimilarityScale, check_similarity_scale, scaled_rows, uses_similarity
from unialign.ops import ContrastSettings, SameIds

Pairs = Literal["anchor", "all"]


class InfoNCE(Objective):
    """Symmetric InfoNCE, averaged over pairs of modalities (Oord et al. 2018; Girdhar et al. 2023; paper Eq. 1).

    The loss is (1/P) sum over pairs (m, n) of [ CE(Z^m Z^nT / tau) + CE(Z^n Z^mT / tau) ] / 2, with the diagonal as
    target. Each pair uses the rows that have both modalities; pairs without such rows are excluded from the mean.

    Args:
        anchor: a modality, for `pairs="anchor"`; `"all"` is the same as `pairs="all"`.
        pairs: `anchor` (the M - 1 pairs that contain it) or `all` (all M (M - 1) / 2 pairs). By default, determined by
            `anchor`.
        temperature: tau > 0, the initial value if it is learnable; or a mapping of every modality to its tau, as in
            e5-omni (arXiv 2601.03666). The tau of a pair is then the geometric mean of the tau of its two modalities.
        temperature_mode: `fixed`, or `learnable` within `temperature_bounds`.
        temperature_bounds: lowest and highest tau; 0.01 is CLIP's cap of 100 on 1 / tau.
        label_smoothing: in [0, 1), spread evenly over the keys of a query.
        direction: `both`, or, with `pairs="anchor"`, only `forward` (queries from the anchor, keys from the other
            modality) or only `backward`.
        same_ids: `exclude` masks other keys with the query's id. `positive` treats every key with the query's id as a
            positive, as in the loss L_out of SupCon (Khosla et al. 2020, Eq. 2): the mean over the positives is outside
            the logarithm, and the denominator contains all positives and negatives.
        pair_weights: weights of the mean over pairs, by pair name (`{"image-text": 2.0}`); other pairs have weight 1.
        hardness: beta in [0, 1e5] of hard negatives (Robinson et al. 2021): the weights of the N negatives of a query
            in its denominator are N exp(beta * cosine) / sum of exp(beta * cosine). The value 0 gives InfoNCE. The
            released code multiplies cosine / tau instead, so its beta is tau times ours. A positive hardness does not
            support label smoothing.
        similarity_scale: s of the weights exp(-s max(0, cos)) of negatives with similar features, as in `UniAlign`; the
            positive has weight 1. A positive scale requires the features as `similarity` in every call, and supports
            neither label smoothing, hardness, a direction, `same_ids="positive"` nor additional negatives.

    The call also accepts `temperature` or `logit_scale`, `negatives` and `queue`; see `forward`. The rows of
    `negatives` and of a `queue` are never positives, even with `same_ids="positive"`.
    """

    name = "infonce"
    display_name = "InfoNCE"
    temperature_kind = "cosines"
    call_arguments = (*TEMPERATURE_ARGUMENTS, "negatives", "queue", "similarity")

    def __init__(
        self,
        anchor: str | None = None,
        *,
        pairs: Pairs | None = None,
        temperature: float | Mapping[str, float] = 0.07,
        temperature_mode: Mode = "fixed",
        temperature_bounds: tuple[float, float] = (0.01, 1.0),
        label_smoothing: float = 0.0,
        direction: Direction = "both",
        same_ids: SameIds = "exclude",
        pair_weights: Mapping[str, float] | None = None,
        hardness: float = 0.0,
        similarity_scale: SimilarityScale = 0.0,
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
        self.temperature = make_temperature(temperature, mode=temperature_mode, bounds=temperature_bounds)
        check_choice("direction", direction, get_args(Direction))
        if direction != "both" and pairs == "all":
            raise ConfigError(f"direction={direction!r} needs anchor='<a modality>'; all pairs need 'both'")
        check_choice("same_ids", same_ids, get_args(SameIds))
        check_pair_weights(pair_weights)
        check_number("hardness", hardness, "a number from 0 to 1e5", lambda x: 0 <= x <= 1e5)
        if hardness > 0 and label_smoothing > 0:
            raise ConfigError("hardness and label_smoothing both change the negatives; set one of them to 0")
        self.direction: Direction = direction
        self.same_ids: SameIds = same_ids
        self.pair_weights = None if pair_weights is None else dict(pair_weights)
        self.hardness = float(hardness)
        check_similarity_scale(similarity_scale)
        self.similarity_scale: SimilarityScale = (
            dict(similarity_scale) if isinstance(similarity_scale, Mapping) else similarity_scale
        )
        if uses_similarity(similarity_scale):
            plain = label_smoothing == 0 and hardness == 0 and direction == "both" and same_ids == "exclude"
            if not plain:
                raise ConfigError(
                    "similarity_scale supports neither label_smoothing, hardness, direction nor same_ids='positive'; "
                    "leave them at their defaults"
                )

    def terms(self, batch: Batch) -> dict[str, LossTerm]:
        pairs = modality_pairs(batch, str(self.anchor) if self.pairs == "anchor" else "all")
        return mean_over_pairs(batch, pairs, self._contrasts(batch, pairs), "contrast", self.pair_weights)

    def _contrasts(self, batch: Batch, pairs: list[Pair]) -> dict[str, Tensor]:
        temperature = self.pair_temperatures(batch, pairs)
        if uses_similarity(self.similarity_scale):
            taus = temperature if isinstance(temperature, list) else [temperature] * len(pairs)
            return self._weighted_contrasts(batch, pairs, taus)
        several_positives = self.same_ids == "positive" and batch.ids_B is not None
        if self.direction == "both" and self.hardness == 0 and not several_positives and not inputs_of(batch).negatives:
            return pair_contrasts(batch, pairs, temperature=temperature, label_smoothing=self.label_smoothing)
        return extended_contrasts(
            batch,
            pairs,
            temperature=temperature,
            direction=self.direction,
            settings=ContrastSettings(self.same_ids, self.hardness, self.label_smoothing),
        )

    def _weighted_contrasts(self, batch: Batch, pairs: list[Pair], taus: list[Tensor | float]) -> dict[str, Tensor]:
        inputs = inputs_of(batch)
        if inputs.negatives:
            raise ConfigError("infonce with a similarity_scale does not support negatives= and queue=; omit them")
        similarity = scaled_rows(batch, inputs.similarity, self.similarity_scale)
        parts = weighted_partitions(
            batch, pairs, kernel="clip", temperatures=taus, similarity=similarity, positive="included"
        )
        values = [(part.value - part.positive).to(batch.z_MBD.dtype) for part in parts]
        named = name_pairs(batch, pairs, "contrast", values)
        return {name: value for (name, value), part in zip(named.items(), parts, strict=True) if part.defined}
