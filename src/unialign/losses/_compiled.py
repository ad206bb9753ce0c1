"""Run objectives inside `torch.compile`: a custom operator evaluates a whole call without a graph break.

The operator computes total, terms and gradients in eager mode. A compiled call returns the terms of a complete batch:
terms that are undefined for the given batch are 0, whereas eager mode omits them. Calls with `negatives`, a `queue` or
a process group are not traced and cause a graph break.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from threading import Thread
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from unialign._single_backward import first_order_only
from unialign.errors import UniAlignError
from unialign.losses._bounded_parameter import BoundedParameter
from unialign.losses._graph_numbers import find_objective

T = TypeVar("T")
Result = tuple[Tensor, Tensor, list[Tensor]]

# Arguments of a call that can be values of the caller's model.
_NUMBERS = ("temperature", "logit_scale", "logit_bias")
# Separators of names and of lists of names, since operators accept strings but not lists of strings.
_NAME, _LIST = "\x1f", "\x1e"
_FIRST_ORDER = "a loss inside torch.compile has no second derivative; call the loss outside the compiled function"


class TracedCall(NamedTuple):
    total: Tensor
    terms: dict[str, Tensor]


def traced_call(objective: Any, embeddings: Any, options: Mapping[str, Any]) -> TracedCall | None:
    present, ids, features = options["present"] or {}, options["ids"], options["similarity"] or {}
    plain = options["negatives"] is None and options["queue"] is None and options["group"] in ("auto", None)
    if not plain or not all(isinstance(rows, Mapping) for rows in (embeddings, present, features)) or not embeddings:
        return None
    given = [name for name in _NUMBERS if options[name] is not None]
    numbers = [_as_tensor(options[name]) for name in given]
    for x in [*embeddings.values(), *present.values(), *features.values(), *numbers, *([] if ids is None else [ids])]:
        if not isinstance(x, Tensor):
            return None
    for module in objective.modules():
        if isinstance(module, BoundedParameter):
            module.clamp_()
    terms = _term_names(objective.graph_number, tuple(embeddings))
    inputs = [*embeddings.values(), *objective.parameters(), *numbers]
    total, terms_T, _ = _evaluate(
        inputs,
        list(objective.buffers()),
        list(present.values()),
        list(features.values()),
        ids,
        objective.graph_number,
        _LIST.join([_NAME.join(names) for names in (embeddings, present, features, given, terms)]),
        options["zero_rows"],
        options["group"] is None,
        [torch.is_grad_enabled() and x.requires_grad for x in inputs],
    )
    objective.advance_draw()
    return TracedCall(total, dict(zip(terms, terms_T.detach().unbind(), strict=True)))


def _as_tensor(value: Any) -> Any:
    if callable(value) and not isinstance(value, Tensor):
        value = value()
    return torch.tensor(value, dtype=torch.float64) if isinstance(value, int | float) else value


def _constant_in_graphs(function: Callable[..., T]) -> Callable[..., T]:
    """Tell torch.compile to treat the result as a constant; do nothing if the compiler is not loaded."""
    loaded = "torch._dynamo" in sys.modules
    return torch.compiler.assume_constant_result(function) if loaded else function  # type: ignore[no-untyped-call]


@_constant_in_graphs
def _term_names(number: int, modalities: tuple[str, ...]) -> tuple[str, ...]:
    """Empty if the objective rejects these modalities."""
    objective, generator = find_objective(number), torch.Generator().manual_seed(0)
    device = next((x.device for x in (*objective.parameters(), *objective.buffers())), torch.device("cpu"))
    training = objective.training
    objective.train(False)  # do not advance the draw of sampled negatives
    try:
        with torch.no_grad():
            dim = max(8, objective.smallest_dim)
            rows = {name: torch.randn(8, dim, generator=generator).to(device) for name in modalities}
            # The terms of some objectives depend on whether the rows are in a narrow cone.
            cone = {name: rows_BD + 100 for name, rows_BD in rows.items()}
            similarity = rows if objective.needs_similarity() else None
            parts = [objective.compute(z, group=None, similarity=similarity)[1] for z in (rows, cone)]
            found = [name for terms in parts for name in terms]
            return tuple(dict.fromkeys(found))
    except UniAlignError:
        return ()  # the operator raises the error
    finally:
        objective.train(training)


# The operator reads values and starts a thread, which a CUDA graph cannot record.
_TAGS = tuple(getattr(torch.Tag, name) for name in ("cudagraph_unsafe",) if hasattr(torch.Tag, name))


@torch.library.custom_op("unialign::objective", mutates_args=(), tags=_TAGS)
def _evaluate(
    inputs: Sequence[Tensor],
    buffers: Sequence[Tensor],
    present: Sequence[Tensor],
    features: Sequence[Tensor],
    ids: Tensor | None,
    number: int,
    names: str,
    zero_rows: str,
    local: bool,
    gradients: Sequence[bool],
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """`names` contains the joined names of the modalities, of those with a mask, of those with features, of the values
    passed to the call, and of the terms.
    """
    objective, (modalities, masked, with_features, given, terms) = find_objective(number), _split(names)
    parameters, of_buffers = (
        [f"objective.{name}" for name, _ in named]
        for named in (objective.named_parameters(), objective.named_buffers())
    )
    options: dict[str, Any] = {"ids": ids, "group": None if local else "auto", "zero_rows": zero_rows}
    options["present"] = dict(zip(masked, present, strict=True)) or None
    options["similarity"] = dict(zip(with_features, features, strict=True)) or None

    def run() -> Result:
        leaves = [x.detach().requires_grad_(needed) for x, needed in zip(inputs, gradients, strict=True)]
        rest = iter(leaves)
        rows, state, numbers = ({name: next(rest) for name in part} for part in (modalities, parameters, given))
        # Copy buffers, since an operator must not modify its inputs.
        state |= {name: buffer.clone() for name, buffer in zip(of_buffers, buffers, strict=True)}
        with torch.set_grad_enabled(any(gradients)):
            total, values = torch.func.functional_call(_Call(objective), state, (rows, options | numbers))
        dtype, zero = _dtype(inputs[: len(modalities)]), total.detach().new_zeros(())
        values_T = torch.stack([values.get(name, zero) for name in terms]) if terms else zero.new_empty(0)
        wanted = [leaf for leaf in leaves if leaf.requires_grad]  # gradients may share memory, outputs may not
        slopes = torch.autograd.grad(total, wanted, materialize_grads=True) if wanted else ()
        return (
            total.detach().to(dtype),
            values_T.to(dtype),
            [slope.clone(memory_format=torch.contiguous_format) for slope in slopes],
        )

    return _with_autograd(run, inputs[0].device) if any(gradients) else run()


@_evaluate.register_fake
def _fake(
    inputs: Sequence[Tensor],
    buffers: Sequence[Tensor],
    present: Sequence[Tensor],
    features: Sequence[Tensor],
    ids: Tensor | None,
    number: int,
    names: str,
    zero_rows: str,
    local: bool,
    gradients: Sequence[bool],
) -> Result:
    modalities, *_, terms = _split(names)
    embedded = inputs[: len(modalities)]
    total = embedded[0].new_empty((), dtype=_dtype(embedded))
    wanted = [x for x, needed in zip(inputs, gradients, strict=True) if needed]
    return total, total.new_empty(len(terms)), [x.new_empty(x.shape) for x in wanted]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Result) -> None:
    ctx.gradients, ctx.sizes = inputs[-1], [len(tensors) for tensors in inputs[1:4]]
    ctx.save_for_backward(*output[2])


def _backward(ctx: Any, g: Tensor, *_: Any) -> tuple[Any, ...]:
    slopes = ctx.saved_tensors
    by_inputs = [first_order_only((slope * g).to(slope.dtype), g, *slopes, message=_FIRST_ORDER) for slope in slopes]
    by_inputs.reverse()
    of_inputs = [by_inputs.pop() if needed else None for needed in ctx.gradients]
    return of_inputs, *([None] * size for size in ctx.sizes), None, None, None, None, None, None


_evaluate.register_autograd(_backward, setup_context=_setup_context)


class _Call(nn.Module):
    def __init__(self, objective: Any) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, embeddings: Mapping[str, Tensor], options: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        out = self.objective(embeddings, **options)
        return out.total, out.terms


def _split(names: str) -> list[list[str]]:
    return [part.split(_NAME) if part else [] for part in names.split(_LIST)]


def _dtype(embedded: Sequence[Tensor]) -> torch.dtype:
    return torch.float64 if any(x.dtype == torch.float64 for x in embedded) else torch.float32


def _with_autograd(function: Callable[[], T], device: torch.device) -> T:
    """Use a separate thread, since operators run without autograd."""
    results: list[T] = []
    errors: list[BaseException] = []
    streams = [torch.cuda.current_stream(device)] if device.type == "cuda" else []

    def run() -> None:
        try:
            if streams:
                torch.cuda.set_stream(streams[0])
            results.append(function())
        except BaseException as error:
            errors.append(error)

    thread = Thread(target=copy_context().run, args=(run,))
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
