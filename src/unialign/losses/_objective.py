"""Base class of objectives: a module that turns a validated batch into weighted, named terms."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Unpack, cast

import torch
from torch import Tensor, nn

from unialign._html import html_table
from unialign.batch import Batch, ZeroRows, make_batch
from unialign.distributed import processes_of
from unialign.functional import order_free_sum
from unialign.losses._bounded_parameter import Temperature
from unialign.losses._call_inputs import (
    CallArguments,
    CallInputs,
    Number,
    describe,
    given,
    inputs_of,
    prepare_inputs,
    with_inputs,
)
from unialign.losses._consistency import call_text
from unialign.losses._gather import gather_batch
from unialign.losses._graph_numbers import register
from unialign.losses._modality_temperature import ModalityTemperature
from unialign.losses._modality_terms import Pair, PairTemperatures
from unialign.losses._similarity import uses_similarity, weighted_modalities

if TYPE_CHECKING:
    from unialign.losses._memory_queue import MemoryQueue


@dataclass(frozen=True)
class LossOutput:
    """Result of a loss.

    Attributes:
        total: differentiable scalar, the weighted sum of the terms.
        terms: detached, unweighted values of the terms, by name (`"uniformity/image"`, `"alignment"`, ...).
    """

    total: Tensor
    terms: dict[str, Tensor]

    def _repr_html_(self) -> str:
        values = {"total": self.total, **self.terms}
        return html_table([(name, f"{float(value.detach()):.4g}") for name, value in values.items()])


class LossTerm(NamedTuple):
    """A differentiable term of an objective, which adds `weight * value` to the total."""

    value: Tensor
    weight: Tensor | float


class Objective(nn.Module, ABC):
    """A training loss over all modalities; subclasses define its terms.

    The call normalizes rows, supports missing modalities and repeated ids, and computes in float32 or higher under any
    autocast setting. Call `backward` outside the autocast block, as PyTorch recommends: inside the block, the matrix
    products of the backward pass run in half precision.

    Attributes:
        name: the name for `create`, configurations and the command line.
        display_name: the name in tables and reports.
        initialization: `contrastive` if the objective trains poorly from scratch and should start from a contrastive
            model.
        needs_anchor: the kind of anchor that is required: `modality`, `any` (a modality or "all"), or `no`.
        temperature_kind: `cosines` if the temperature divides cosines and can be shared with an InfoNCE warmup.
        call_arguments: the supported arguments of `forward` among `temperature`, `logit_scale`, `logit_bias`,
            `negatives`, `queue` and `similarity`.
        smallest_dim: the smallest dimension of embeddings that the objective accepts.
    """

    name: ClassVar[str]
    display_name: ClassVar[str]
    initialization: ClassVar[Literal["scratch", "contrastive"]] = "scratch"
    needs_anchor: ClassVar[Literal["modality", "any", "no"]] = "no"
    temperature_kind: Literal["cosines", "other"] = "other"
    call_arguments: tuple[str, ...] = ()
    smallest_dim: int = 1

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "name" in cls.__dict__ and "display_name" not in cls.__dict__:
            cls.display_name = cls.name

    def __init__(self) -> None:
        super().__init__()
        self.graph_number = register(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.graph_number = register(self)  # a copy needs its own number

    def forward(
        self,
        embeddings: Mapping[str, Tensor],
        *,
        present: Mapping[str, Tensor] | None = None,
        ids: Tensor | None = None,
        group: Any = "auto",
        zero_rows: ZeroRows = "error",
        temperature: Number | None = None,
        logit_scale: Number | None = None,
        logit_bias: Number | None = None,
        negatives: Mapping[str, Tensor] | None = None,
        queue: "MemoryQueue | None" = None,
        similarity: Mapping[str, Tensor] | None = None,
    ) -> LossOutput:
        """Compute the loss of a batch, which may be sharded over several processes.

        If torch.distributed runs with more than one process, the batch is the concatenation over processes by rank, and
        every process gets the total and terms of the whole batch. All processes must call the loss, but a process may
        have a different number of rows, no rows, or fewer modalities. The mean of the gradients over processes, which
        DDP and FSDP compute, is the gradient of the whole batch; each process gets the full gradient of the objective's
        parameters.

        Args:
            embeddings: modality -> (B, D), any floating dtype; row i of every entry belongs to item i.
            present: modality -> (B,) bool; modalities not listed have all rows present. Absent rows may contain any
                values.
            ids: (B,) integers; same-id items are never each other's negatives, also across processes. Pass ids
                on every process that has rows, or on none.
            group: the processes that share a batch: `"auto"` for all, None for this process only (such as for
                evaluation on one process), or a `torch.distributed` process group.
            zero_rows: `error` raises for rows of norm zero, such as outputs of dead ReLUs; `ignore` treats them as
                absent.
            temperature: tau > 0, which replaces the temperature of the objective in this call: a number, a tensor with
                one element, or a function without arguments that returns one of them. The value is differentiable and
                is not clamped to the bounds. With several processes, each process gets the full gradient, so keep the
                parameter equal on all processes.
            logit_scale: 1 / tau, an alternative to `temperature`: the multiplier of the cosines, after `exp`, as in
                open_clip. For `Sigmoid`, it replaces the scale.
            logit_bias: bias of the logits, for `Sigmoid`.
            negatives: modality -> (B, K, D), K additional negatives of each item, or (K, D), negatives shared by all
                items, for `InfoNCE`. They are keys for the queries of other modalities. With several processes, shared
                rows are concatenated, so pass each row on only one process, but pass the same modalities on all
                processes.
            queue: rows of earlier batches as additional negatives, for `InfoNCE`; see `MemoryQueue`.
            similarity: modality -> (B, W) features of the items, such as the embeddings of frozen encoders, for
                objectives with a `similarity_scale`: negatives with similar features get smaller weights. The features
                have no gradient; rows of norm zero are similar to none. With several processes, pass the same
                modalities on all processes.

        Raises:
            ShapeError, NonFiniteError, ConfigError: see `unialign.batch.make_batch`; an unknown anchor; an argument
                that the objective does not support. If the batch of a process is invalid, every process raises an error
                that names that process; every process also raises if the processes use different objectives or
                settings, or if only some of them run under `torch.no_grad`.
            DistributedError: another process exited or did not respond within the timeout of the group.
        """
        options: dict[str, Any] = {"present": present, "ids": ids, "group": group, "zero_rows": zero_rows}
        options |= {"temperature": temperature, "logit_scale": logit_scale, "logit_bias": logit_bias}
        options |= {"negatives": negatives, "queue": queue, "similarity": similarity}
        if torch.compiler.is_compiling():
            from unialign.losses._compiled import traced_call

            traced = traced_call(self, embeddings, options)
            if traced is not None:
                return LossOutput(*traced)
        batch, terms = self.compute(embeddings, **options)
        return LossOutput(weighted_sum(batch, terms), {name: term.value.detach() for name, term in terms.items()})

    def compute(
        self,
        embeddings: Mapping[str, Tensor],
        *,
        present: Mapping[str, Tensor] | None = None,
        ids: Tensor | None = None,
        group: Any = "auto",
        zero_rows: ZeroRows = "error",
        **call: Unpack[CallArguments],
    ) -> tuple[Batch, dict[str, LossTerm]]:
        """Return the validated batch and the differentiable terms, for callers that weight or monitor terms.

        The arguments are those of `forward`.
        """
        values = embeddings.values() if isinstance(embeddings, Mapping) else ()  # make_batch rejects others
        device_type = next((z.device.type for z in values if isinstance(z, Tensor)), "cpu")
        if not torch.amp.is_autocast_available(device_type):  # the meta device, which make_batch rejects
            device_type = "cpu"
        autocast = torch.is_autocast_enabled(device_type)
        with torch.autocast(device_type, enabled=False) if autocast else nullcontext():
            batch = self._make_batch(given(call), embeddings, present, ids, group, zero_rows)
            terms = self.terms(batch)
        self.advance_draw()
        return batch, terms

    def _make_batch(
        self,
        arguments: CallArguments,
        embeddings: Mapping[str, Tensor],
        present: Mapping[str, Tensor] | None,
        ids: Tensor | None,
        group: Any,
        zero_rows: ZeroRows,
    ) -> Batch:
        prepare = partial(self._prepare, arguments, zero_rows) if arguments or zero_rows != "error" else None
        shared = processes_of(group)
        if shared is None:
            batch = make_batch(embeddings, present=present, ids=ids, zero_rows=zero_rows)
            return batch if prepare is None else with_inputs(batch, prepare(batch))
        text = call_text(
            self.name,
            self.get_config(),
            gradients=torch.is_grad_enabled(),
            parameters=list(self.named_parameters()),
            draw=self.draw_number(),
            inputs=describe(arguments, zero_rows),
        )
        return gather_batch(
            embeddings, present=present, ids=ids, group=shared, call=text, zero_rows=zero_rows, prepare=prepare
        )

    def _prepare(self, arguments: CallArguments, zero_rows: ZeroRows, batch: Batch | None) -> CallInputs:
        return prepare_inputs(arguments, batch, objective=self.name, supported=self.call_arguments, zero_rows=zero_rows)

    def needs_similarity(self) -> bool:
        """Return whether calls need `similarity`."""
        return uses_similarity(getattr(self, "similarity_scale", 0.0))

    def similarity_modalities(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return those of the modalities whose features calls need as `similarity`."""
        return weighted_modalities(getattr(self, "similarity_scale", 0.0), names)

    def call_temperature(self, batch: Batch) -> Tensor | float:
        """Return the temperature passed to the call of a batch, or the temperature of the objective."""
        return inputs_of(batch).tau(cast(Temperature, self.temperature))

    def pair_temperatures(self, batch: Batch, pairs: list[Pair]) -> PairTemperatures:
        """Return the temperature of all pairs or, if modalities have their own temperatures, of each pair."""
        temperature = self.cosine_temperature(batch)
        if isinstance(temperature, ModalityTemperature):
            return [temperature.pair([batch.names[m]], [batch.names[n]]) for m, n in pairs]
        return self.call_temperature(batch)

    def cosine_temperature(self, batch: Batch) -> Tensor | float | ModalityTemperature | None:
        """Return the temperature that divides cosines in the call of a batch; None if there is none."""
        if self.temperature_kind != "cosines":
            return None
        inputs, own = inputs_of(batch), self.temperature
        if isinstance(own, ModalityTemperature) and inputs.temperature is None and inputs.scale is None:
            return own
        return self.call_temperature(batch)

    @abstractmethod
    def terms(self, batch: Batch) -> dict[str, LossTerm]:
        """Return the differentiable terms of a validated batch; terms without any row or pair are omitted."""

    def advance_draw(self) -> None:
        """Advance the random draw after a training step; a no-op for deterministic objectives."""

    def draw_number(self) -> int:
        """Return the index of the next random draw; 0 for deterministic objectives."""
        return 0

    def get_config(self) -> dict[str, Any]:
        """Return a JSON-serializable config; `unialign.losses.create(self.name, **config)` rebuilds the objective.

        The values are the attributes named like the arguments of the constructor; a subclass without such attributes
        must override this method.
        """
        temperature = getattr(self, "temperature", None)
        known = temperature.get_config() if isinstance(temperature, Temperature | ModalityTemperature) else {}
        names = inspect.signature(type(self)).parameters
        return {name: known[name] if name in known else getattr(self, name) for name in names}

    def extra_repr(self) -> str:
        return ", ".join(f"{key}={value!r}" for key, value in self.get_config().items())


def weighted_sum(batch: Batch, terms: Mapping[str, LossTerm]) -> Tensor:
    """Return the weighted sum of the terms, a scalar that is differentiable even without terms.

    The sum is bitwise independent of the order of the terms.
    """
    if not terms:  # the sum is finite, since absent rows are exact zeros
        return batch.z_MBD.sum() * 0.0
    if len(terms) == 1:
        (term,) = terms.values()
        return term.value if isinstance(term.weight, float) and term.weight == 1 else term.weight * term.value
    weights = [term.weight for term in terms.values()]
    values_T = torch.stack([term.value for term in terms.values()])
    if any(isinstance(weight, Tensor) for weight in weights):
        weights_T = torch.stack([torch.as_tensor(weight, device=values_T.device) for weight in weights])
        return order_free_sum(weights_T * values_T)
    if weights.count(1.0) == len(weights):
        return order_free_sum(values_T)
    return order_free_sum(values_T * values_T.new_tensor(weights))


def mean_terms(values: Mapping[str, Tensor], weight: float = 1.0) -> dict[str, LossTerm]:
    return {name: LossTerm(value, weight / len(values)) for name, value in values.items() if weight != 0}
