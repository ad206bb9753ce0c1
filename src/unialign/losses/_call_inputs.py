"""Arguments of a call other than the batch, such as the temperature of the caller's model.

Shapes: `B` items, `n` items of this process, `E` shared negatives, `K` negatives of each item, `D` dimension.
"""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import torch
from torch import Tensor

from unialign._checks import check_number
from unialign.batch import Batch, ZeroRows
from unialign.errors import ConfigError
from unialign.losses._negatives import ModalityNegatives, check_names, check_negatives, queued_rows
from unialign.losses._similarity import check_similarity, check_similarity_names

if TYPE_CHECKING:
    from unialign.losses._memory_queue import MemoryQueue

# A value of the caller's model: a number, a tensor with one element, or a function that returns a number or a tensor.
Number = float | Tensor | Callable[[], float | Tensor]


TEMPERATURE_ARGUMENTS = ("temperature", "logit_scale")


class CallArguments(TypedDict, total=False):
    temperature: Number | None
    logit_scale: Number | None
    logit_bias: Number | None
    negatives: Mapping[str, Tensor] | None
    queue: "MemoryQueue | None"
    similarity: Mapping[str, Tensor] | None


@dataclass(frozen=True, eq=False)
class CallInputs:
    """Validated arguments of a call. If a value is None, that of the objective is used."""

    temperature: Tensor | float | None = None
    scale: Tensor | float | None = None
    bias: Tensor | float | None = None
    negatives: Mapping[str, ModalityNegatives] = field(default_factory=dict)
    similarity: Mapping[str, Tensor] = field(default_factory=dict)  # unit rows
    zero_rows: ZeroRows = "error"

    def tau(self, default: Callable[[], Tensor | float]) -> Tensor | float:
        if self.temperature is not None:
            return self.temperature
        return default() if self.scale is None else 1 / self.scale

    def multiplier(self, default: Callable[[], Tensor | float]) -> Tensor | float:
        if self.scale is not None:
            return self.scale
        return default() if self.temperature is None else 1 / self.temperature


NO_INPUTS = CallInputs()


@dataclass(frozen=True)
class BatchWithInputs(Batch):
    inputs: CallInputs = NO_INPUTS


def inputs_of(batch: Batch) -> CallInputs:
    return batch.inputs if isinstance(batch, BatchWithInputs) else NO_INPUTS


def with_inputs(batch: Batch, inputs: CallInputs) -> Batch:
    check_names(inputs.negatives, batch.names)
    check_similarity_names(inputs.similarity, batch.names)
    return BatchWithInputs(batch.names, batch.z_MBD, batch.present_MB, batch.ids_B, batch.shard, inputs)


def given(arguments: CallArguments) -> CallArguments:
    values = {name: value for name, value in arguments.items() if value is not None}
    for name in ("temperature", "logit_scale", "logit_bias"):
        value = values.get(name)
        if callable(value) and not isinstance(value, Tensor):
            values[name] = value()
            if values[name] is None:
                raise ConfigError(f"{name}= is a function that returned None; it must return a number or a tensor")
    return values  # type: ignore[return-value]


def describe(arguments: CallArguments, zero_rows: ZeroRows = "error") -> str:
    """Return a string that is equal on two processes if their arguments are compatible."""
    texts = [] if zero_rows == "error" else [f"zero_rows={zero_rows!r}"]
    for name, value in arguments.items():
        if isinstance(value, Tensor):
            texts.append(f"{name}= a tensor{' with gradient' if value.requires_grad else ''}")
        elif isinstance(value, int | float):
            texts.append(f"{name}={value}")
        elif isinstance(value, Mapping):
            kinds = {key: getattr(rows, "ndim", None) for key, rows in sorted(value.items(), key=str)}
            texts.append(f"{name}= {', '.join(f'{key!r} of {kind} dimensions' for key, kind in kinds.items())}")
        else:
            texts.append(f"{name}= a {type(value).__name__}{getattr(value, 'description', '')}")
    return f"with {' and '.join(texts)}" if texts else ""


def prepare_inputs(
    arguments: CallArguments, batch: Batch | None, *, objective: str, supported: Collection[str], zero_rows: ZeroRows
) -> CallInputs:
    """Validate the arguments on this process; `batch` is None on a process without modalities."""
    for name in arguments:
        if name not in supported:
            known = ", ".join(f"{option}=" for option in supported) or "none of these arguments"
            raise ConfigError(f"{objective} does not support {name}= in a call; it supports {known}")
    if "temperature" in arguments and "logit_scale" in arguments:
        raise ConfigError("temperature= and logit_scale= are reciprocals of each other; give one of them")
    queue = arguments.get("queue")
    negatives: dict[str, ModalityNegatives] = {}
    if arguments.get("negatives") is not None:
        negatives = check_negatives(arguments["negatives"], batch, zero_rows=zero_rows)
    if queue is not None:
        negatives = queued_rows(queue, batch, negatives)
    return CallInputs(
        temperature=_scalar(
            arguments.get("temperature"),
            "temperature",
            "a positive finite number of at least 1e-6",
            lambda x: 0.999e-6 < x < math.inf,  # 1e-6 in any dtype
        ),
        scale=_scalar(
            arguments.get("logit_scale"),
            "logit_scale",
            "a positive number of at most 1e6 (1 / temperature, after exp)",
            lambda x: 0 < x < 1.001e6,
        ),
        bias=_scalar(arguments.get("logit_bias"), "logit_bias", "a finite number", math.isfinite),
        negatives=negatives,
        similarity={} if arguments.get("similarity") is None else check_similarity(arguments["similarity"], batch),
        zero_rows=zero_rows,
    )


def _scalar(value: Any, option: str, expected: str, accept: Callable[[float], bool]) -> Tensor | float | None:
    if value is None:
        return None
    if not isinstance(value, Tensor):
        value = float(value) if isinstance(value, np.floating) else value
        check_number(option, value, f"{expected} (as a number, tensor or function)", accept)
        return float(value)
    if value.numel() != 1 or not value.is_floating_point():
        raise ConfigError(
            f"{option} is a tensor of {value.dtype} and shape {tuple(value.shape)}; expected one floating-point number"
        )
    # Checking the value would cause a graph break in torch.compile.
    if not torch.compiler.is_compiling() and not accept(float(value.detach())):
        raise ConfigError(f"{option} must be {expected}, got {float(value.detach())}")
    return value.reshape(()).to(torch.promote_types(value.dtype, torch.float32))
