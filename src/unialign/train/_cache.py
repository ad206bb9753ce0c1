"""Gradient cache: the loss of a batch that the encoders cannot hold at once, exact in value and gradient.

Gao, Zhang, Han, Callan (2021), "Scaling deep contrastive learning batch size under memory limited setup", section 3.2:
dL/dw = sum_p (dL/dz_p)^T dz_p/dw over pieces p of the batch. The loss needs all embeddings z but none of the encoders'
activations; the encoders need dL/dz of one piece at a time.

Shapes: `B` rows of the whole batch, `b` rows of a piece, `D` width.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from unialign._checks import check_number
from unialign.embeddings import Batch
from unialign.errors import ConfigError, ShapeError
from unialign.losses import LossOutput, Objective, Term, weighted_sum

__all__ = ["Look", "cached_backward"]

Piece = TypeVar("Piece")

# Called with the whole batch and its live terms, before the backward pass.
Look = Callable[[Objective, Batch, dict[str, Term]], None]


def cached_backward(
    objective: Objective,
    encode: Callable[[Piece], Mapping[str, Tensor]],
    pieces: Iterable[Piece],
    *,
    present: Mapping[str, Tensor] | None = None,
    ids: Tensor | None = None,
    group: Any = "auto",
    modules: Iterable[nn.Module] = (),
    weight: float = 1.0,
    look: Look | None = None,
) -> LossOutput:
    """Forward and backward of one loss over a batch in pieces: activations of one piece are in memory at a time.

    The value and the gradient are those of `objective(encode(whole batch)).total.backward()`, up to rounding; it costs
    one more forward pass of the encoders. Each piece is encoded twice: first without gradient, then, with the gradient
    of the loss by its embeddings known, once more with the same random numbers (CPU and CUDA), so that dropout repeats
    itself exactly. A single piece is encoded once, unless `modules` are given.

    Example:
        >>> import torch, unialign
        >>> from unialign.train import cached_backward
        >>> model = torch.nn.ModuleDict({"image": torch.nn.Linear(6, 4), "text": torch.nn.Linear(5, 4)})
        >>> objective = unialign.losses.create("infonce")
        >>> batch = {"image": torch.randn(32, 6), "text": torch.randn(32, 5)}
        >>> pieces = [{name: x[at : at + 8] for name, x in batch.items()} for at in range(0, 32, 8)]
        >>> out = cached_backward(objective, lambda piece: {m: model[m](x) for m, x in piece.items()}, pieces)
        >>> tuple(model["image"].weight.grad.shape)
        (4, 6)

    Args:
        objective: any objective; its own parameters, a temperature for one, get their gradient once.
        encode: piece -> modality -> (b, D) raw embeddings with gradient. It opens its own autocast block, draws random
            numbers from PyTorch's default generators only, and does the same both times. Layers that update themselves
            in training, such as batch normalisation, do so twice and see one piece at a time.
        pieces: what `encode` takes, in the order of the rows; the pieces may have different numbers of rows.
        present, ids: of the whole batch, as the objective takes them.
        group: the processes whose rows make one batch, as the objective takes it.
        modules: DistributedDataParallel modules inside `encode`; they average their gradients with the last piece only.
            Processes may have different numbers of pieces, at least one.
        weight: factor on the gradient, for loops that add up several batches.
        look: called with the objective, the whole batch and its live terms before the backward pass.

    Returns:
        The loss of the whole batch, detached: its backward pass is done, and gradients are added to `.grad`.

    Raises:
        ConfigError: no piece; a module without `no_sync`; embeddings without gradient.
        ShapeError: pieces with different modalities or widths; the second pass of a piece has another shape.
        NonFiniteError: as the objective, with the row in the whole batch.
    """
    parts = list(pieces)
    if not parts:
        raise ConfigError("cached_backward needs at least one piece of a batch; got none")
    check_number("weight", weight, "a finite number", lambda x: abs(x) < torch.inf)
    wrapped = list(modules)
    for module in wrapped:
        if not hasattr(module, "no_sync"):
            raise ConfigError(f"modules must be DistributedDataParallel modules, got {type(module).__name__}")

    def backward(embeddings: Mapping[str, Tensor]) -> LossOutput:
        batch, terms = objective.compute(embeddings, present=present, ids=ids, group=group)
        if look is not None:
            look(objective, batch, terms)
        total = weighted_sum(batch, terms)
        torch.autograd.backward(total if weight == 1 else total * weight)
        return LossOutput(total.detach(), {name: term.value.detach() for name, term in terms.items()})

    # Under DDP, where another process has more pieces, encoders that run before the loss would meet out of turn.
    if len(parts) == 1 and not wrapped:
        embeddings = dict(encode(parts[0]))
        _check_gradient(embeddings)
        return backward(embeddings)
    states, encoded = [], []
    with torch.no_grad():
        for piece in parts:
            states.append(_random_state())
            encoded.append(dict(encode(piece)))
    leaves = {name: z_BD.requires_grad_() for name, z_BD in _joined(encoded).items()}
    sizes = [{name: z_bD.shape for name, z_bD in embeddings.items()} for embeddings in encoded]
    del encoded
    output = backward(leaves)
    after = _random_state()
    place = dict.fromkeys(leaves, 0)
    for number, (piece, state, shapes) in enumerate(zip(parts, states, sizes, strict=True)):
        _replay(state)
        # A cast of a weight that autocast kept from the first pass has no gradient.
        torch.clear_autocast_cache()
        with _no_sync(wrapped if number < len(parts) - 1 else []):
            embeddings = dict(encode(piece))
            _check_repeated(embeddings, shapes, number)
            _check_gradient(embeddings)
            outputs, gradients = [], []
            for name, z_bD in embeddings.items():
                first, place[name] = place[name], place[name] + len(z_bD)
                g_BD = leaves[name].grad
                if g_BD is not None and z_bD.requires_grad:
                    outputs.append(z_bD)
                    gradients.append(g_BD[first : place[name]])
            if outputs:
                torch.autograd.backward(outputs, gradients)
    _replay(after)
    return output


def _joined(encoded: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    names = list(encoded[0])
    for number, embeddings in enumerate(encoded):
        if set(embeddings) != set(names):
            raise ShapeError(
                f"piece {number} has the modalities {list(embeddings)}, piece 0 has {names}; every piece needs the "
                f"same ones (use `present=` for items that lack one)"
            )
        for name, z_bD in embeddings.items():
            if z_bD.ndim != 2 or z_bD.shape[1] != encoded[0][name].shape[-1]:
                raise ShapeError(
                    f"{name!r} has shape {tuple(z_bD.shape)} in piece {number} and {tuple(encoded[0][name].shape)} in "
                    f"piece 0; expected (rows, width) with the same width"
                )
    return {name: torch.cat([embeddings[name] for embeddings in encoded]) for name in names}


def _check_repeated(embeddings: dict[str, Tensor], shapes: dict[str, torch.Size], number: int) -> None:
    again = {name: z_bD.shape for name, z_bD in embeddings.items()}
    if again != shapes:
        first, second = ({name: tuple(shape) for name, shape in found.items()} for found in (shapes, again))
        raise ShapeError(
            f"encode gave shapes {first} for piece {number} in the first pass and {second} in the second; it must do "
            f"the same both times"
        )


def _check_gradient(embeddings: dict[str, Tensor]) -> None:
    if embeddings and not any(isinstance(z, Tensor) and z.requires_grad for z in embeddings.values()):
        raise ConfigError(
            "encode gave embeddings without gradient, so nothing would be trained; leave out `no_grad` and `detach`"
        )


class _RandomState(NamedTuple):
    cpu: Tensor
    cuda: list[Tensor]  # by device; empty where CUDA is not in use


def _random_state() -> _RandomState:
    # Asking a CUDA device that nobody uses would start CUDA.
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    return _RandomState(torch.get_rng_state(), cuda)


def _replay(state: _RandomState) -> None:
    torch.set_rng_state(state.cpu)
    if state.cuda:
        torch.cuda.set_rng_state_all(state.cuda)


@contextmanager
def _no_sync(modules: list[Any]) -> Iterator[None]:
    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(module.no_sync())
        yield
