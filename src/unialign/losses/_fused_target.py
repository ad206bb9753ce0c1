"""Fused targets: contrast or align the mean of several modalities with a remaining modality.

Shapes: `M` modalities, `B` items, `D` dimension, `F` fused modalities.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from unialign._checks import check_choice, check_nonnegative, check_temperature
from unialign._pair_keys import pair_name
from unialign.batch import Batch
from unialign.errors import ConfigError
from unialign.functional import order_free_sum, unit_or_zero
from unialign.losses._modality_temperature import ModalityTemperature
from unialign.losses._modality_terms import Pair, PairTemperatures, pair_contrasts
from unialign.losses._objective import LossTerm, Objective, mean_terms
from unialign.losses._wrapper import ObjectiveWrapper

Subsets = Literal["leave_one_out", "all"]
Form = Literal["contrast", "alignment"]

# Temperature of the fused term, for objectives without a temperature that scales cosines.
_TEMPERATURE = 0.07


class FusedTarget(ObjectiveWrapper):
    """An objective plus a term that matches the mean of several modalities with a remaining modality.

    The normalized mean f_S of the unit rows of a subset S is the joint query of retrieval with several modalities. The
    loss is L + weight * mean over (S, m) of ell(f_S, z^m), with L any objective, S a subset of at least two modalities,
    and m a modality outside S. For `contrast`, ell is symmetric InfoNCE, as in ConFu (Koutoupis et al., CVPR 2026,
    arXiv 2511.21331), where the fusion is a learned network instead of the mean. TupleInfoNCE (Liu et al., ICCV 2021)
    contrasts whole tuples with tuples in which one modality is replaced. For `alignment`, ell is mean |f - z|^2 / (2
    tau), which has no negatives.

    The batch needs at least three modalities. Term names are `fused/<a>+<b>-<m>`, or `fused/others-<m>`.

    Args:
        objective: an objective, or the name of an objective.
        weight: weight of the fused term.
        subsets: `leave_one_out` fuses all other present modalities of an item, for items with the modality m and at
            least two others (M terms); `all` has one term for each S and m, for items with all of these modalities
            (M (2^(M - 1) - M) terms).
        form: `contrast` or `alignment`.
        temperature: tau of the fused term. By default, it is the temperature of the objective if this temperature
            divides cosines, including a temperature passed to the call, and 0.07 otherwise.
        objective_options: options of an objective given by name.

    Examples:
        >>> import torch
        >>> z = {name: torch.eye(4) + k for k, name in enumerate(("image", "text", "audio"))}
        >>> list(FusedTarget("infonce", weight=0.5)(z).terms)[-3:]
        ['fused/others-image', 'fused/others-text', 'fused/others-audio']

    Raises:
        ConfigError: an invalid option; a call with two modalities.
    """

    name = "fused_target"
    display_name = "Fused target"

    def __init__(
        self,
        objective: str | Objective = "infonce",
        weight: float = 1.0,
        *,
        subsets: Subsets = "leave_one_out",
        form: Form = "contrast",
        temperature: float | None = None,
        objective_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(objective, objective_options)
        check_nonnegative("weight", weight)
        check_choice("subsets", subsets, get_args(Subsets))
        check_choice("form", form, get_args(Form))
        if temperature is not None:
            check_temperature(temperature)
        self.weight, self.fused_temperature = float(weight), temperature
        self.subsets: Subsets = subsets
        self.form: Form = form

    def terms(self, batch: Batch) -> dict[str, LossTerm]:
        terms = self.objective.terms(batch)
        if self.weight == 0:
            return terms
        if len(batch.names) < 3:
            raise ConfigError(
                f"{self.name} needs at least three modalities, got {', '.join(map(repr, batch.names))}; with two, the "
                "objective already matches the only pair"
            )
        fused, pairs, subsets = _with_fused_modalities(batch, self.subsets)
        tau = self._tau(batch, subsets)
        if self.form == "alignment":
            return terms | _alignments(fused, pairs, tau, self.weight)
        values = pair_contrasts(fused, pairs, temperature=tau)
        return terms | mean_terms({f"fused/{name.partition('/')[2]}": x for name, x in values.items()}, self.weight)

    def own_config(self) -> dict[str, Any]:
        return {
            "weight": self.weight,
            "subsets": self.subsets,
            "form": self.form,
            "temperature": self.fused_temperature,
        }

    def _tau(self, batch: Batch, subsets: Sequence[tuple[list[str], str]]) -> PairTemperatures:
        if self.fused_temperature is not None:
            return self.fused_temperature
        shared = self.objective.cosine_temperature(batch)
        if isinstance(shared, ModalityTemperature):
            return [shared.pair(subset, [target]) for subset, target in subsets]
        return _TEMPERATURE if shared is None else shared


def _with_fused_modalities(batch: Batch, subsets: Subsets) -> tuple[Batch, list[Pair], list[tuple[list[str], str]]]:
    """Return the batch with the means of subsets as further modalities, and the pairs (mean, target)."""
    names, z_BD, present_B = list(batch.names), list(batch.z_MBD.unbind()), list(batch.present_MB.unbind())
    pairs: list[Pair] = []
    named: list[tuple[list[str], str]] = []
    for subset, targets, least in _subsets(len(batch.names), subsets):
        parts = [batch.names[m] for m in subset]
        pairs += [(len(names), m) for m in targets]
        named += [(parts, batch.names[m]) for m in targets]
        names.append(_joined(parts) if subsets == "all" else "others")
        mean_BD, defined_B = unit_or_zero(order_free_sum(torch.stack([z_BD[m] for m in subset])))
        present_B.append(defined_B & (batch.present_MB[list(subset)].sum(0) >= least))
        z_BD.append(mean_BD)
    fused = Batch(tuple(names), torch.stack(z_BD), torch.stack(present_B), batch.ids_B, batch.shard)
    return fused, pairs, named


def _subsets(modalities: int, subsets: Subsets) -> Iterator[tuple[tuple[int, ...], list[int], int]]:
    """Yield each subset, its targets, and the minimum number of modalities that an item must have."""
    every = range(modalities)
    if subsets == "leave_one_out":
        for m in every:
            yield tuple(n for n in every if n != m), [m], 2
    else:
        for size in range(2, modalities):
            for subset in combinations(every, size):
                yield subset, [m for m in every if m not in subset], size


def _alignments(batch: Batch, pairs: Sequence[Pair], tau: PairTemperatures, weight: float) -> dict[str, LossTerm]:
    """Mean squared distance of each pair, with weight / (2 tau)."""
    taus = tau if isinstance(tau, list) else [tau] * len(pairs)
    values: dict[str, tuple[Tensor, Tensor | float]] = {}
    for (f, m), tau_of_pair in zip(pairs, taus, strict=True):
        both_B = batch.present_MB[f] & batch.present_MB[m]
        if bool(both_B.any()):
            square_B = ((batch.rows(f) - batch.rows(m)) ** 2).sum(-1)
            mean = torch.where(both_B, square_B, 0.0).sum() / both_B.sum()
            values[f"fused/{pair_name(batch.names[f], batch.names[m])}"] = mean, tau_of_pair
    return {name: LossTerm(mean, weight / (2 * tau * len(values))) for name, (mean, tau) in values.items()}


def _joined(names: Iterable[str]) -> str:
    """Names with a plus sign or quotation mark are quoted."""
    return "+".join(sorted(repr(name) if any(mark in name for mark in "+'\"") else name for name in names))
