"""Gradient cache: the loss of a batch that the encoders cannot hold at once, exact in value and gradient.

Gao, Zhang, Han, Callan (2021), "Scaling deep contrastive learning batch size under memory limited setup", section 3.2:
dL/dw = sum_p (dL/dz_p)^T dz_p/dw over pieces p of the batch. The loss needs all embeddings z but none of the encoders'
activations; the encoders need dL/dz of one piece at a time.

Shapes: `B` rows of the whole batch, `b` rows of a piece, `D` width.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from unialign._checks import check_number
from unialign.batch import Batch
from unialign.distributed import processes_of
from unialign.errors import ConfigError, ShapeError
from unialign.losses import LossOutput, LossTerm, Objective, weighted_sum
from unialign.train._ddp import Wrapped

__all__ = ["Look", "grad_cache_backward"]

Piece = TypeVar("Piece")

# Called with the whole batch and its live terms, before the backward pass.
Look = Callable[[Objective, Batch, dict[str, LossTerm]], None]


def grad_cache_backward(
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
    itself exactly. A single piece is encoded once, unless another process has several and `modules` are given.

    Where the batch lies on several processes, each brings pieces of its own rows: as many as it likes, or none. The
    mean of the gradients over the processes is then that of the whole batch; one without pieces gives none (`.grad`
    stays None), which counts as zero. DDP and FSDP2 take that mean by themselves: name their modules in `modules`.

    Example:
        >>> import torch, unialign
        >>> from unialign.train import grad_cache_backward
        >>> model = torch.nn.ModuleDict({"image": torch.nn.Linear(6, 4), "text": torch.nn.Linear(5, 4)})
        >>> objective = unialign.losses.create("infonce")
        >>> batch = {"image": torch.randn(32, 6), "text": torch.randn(32, 5)}
        >>> pieces = [{name: x[at : at + 8] for name, x in batch.items()} for at in range(0, 32, 8)]
        >>> out = grad_cache_backward(objective, lambda piece: {m: model[m](x) for m, x in piece.items()}, pieces)
        >>> tuple(model["image"].weight.grad.shape)
        (4, 6)

    Args:
        objective: any objective; its own parameters, a temperature for one, get their gradient once.
        encode: piece -> modality -> (b, D) raw embeddings with gradient. It opens its own autocast block, draws random
            numbers from PyTorch's default generators only, and does the same both times. Layers that update themselves
            in training, such as batch normalisation, do so twice and see one piece at a time.
        pieces: what `encode` takes, in the order of the rows; the pieces may have different numbers of rows, or none.
        present, ids: of the whole batch, as the objective takes them.
        group: the processes whose rows make one batch, as the objective takes it.
        modules: DistributedDataParallel and FSDP2 (`fully_shard`) modules inside `encode`, the same ones in the same
            order on every process. They average their gradients once, with the last piece, for two short exchanges
            more. Each process needs a piece, one of zero rows (`x[:0]`) if it has none, and calls all of them: the
            encoder of a modality that it lacks on placeholders that `present` marks as absent, unless one DDP module
            with `find_unused_parameters=True` holds all encoders. Under FSDP2 a process encodes its last piece again,
            with gradient zero, until it has done so as often as the others, and keeps whole gradients of the modules
            until the last piece. An FSDP2 module left out of `modules` averages with every piece instead; processes
            must then have equally many.
        weight: factor on the gradient, for loops that add up several batches.
        look: called with the objective, the whole batch and its live terms before the backward pass.

    Returns:
        The loss of the whole batch, detached: its backward pass is done, and gradients are added to `.grad`.

    Raises:
        ConfigError: no piece on a process alone; modules of another kind; embeddings without gradient. On every
            process: one has no piece under `modules`, other `modules`, or does not call one that others call.
        DistributedError: on the others, where one fails in the first pass under DDP.
        ShapeError: pieces with different modalities or widths; the second pass of a piece has another shape.
        NonFiniteError: as the objective, with the row in the whole batch.
    """
    if not torch.is_grad_enabled():
        raise ConfigError("grad_cache_backward makes gradients; call it outside `no_grad` and `inference_mode`")
    parts, wrapped = list(pieces), Wrapped(modules)
    check_number("weight", weight, "a finite number", lambda x: abs(x) < torch.inf)
    most = wrapped.most_pieces(len(parts))
    if not parts:
        if wrapped.modules or processes_of(group) is None:
            raise ConfigError("grad_cache_backward needs at least one piece of a batch; got none")
        # Masks of no rows are no presence of a modality.
        present = {name: x_n for name, x_n in (present or {}).items() if x_n.numel() > 0}

    def backward(embeddings: Mapping[str, Tensor]) -> LossOutput:
        batch, terms = objective.compute(embeddings, present=present, ids=ids, group=group)
        if look is not None:
            look(objective, batch, terms)
        total = weighted_sum(batch, terms)
        torch.autograd.backward(total if weight == 1 else total * weight)
        return LossOutput(total.detach(), {name: term.value.detach() for name, term in terms.items()})

    if not parts:
        return backward({})
    # Where another process has more pieces, encoders that communicate before the loss would meet out of turn.
    if most == 1:
        with wrapped.met_everywhere():
            embeddings = _named(encode(parts[0]))
            _check_any(embeddings, wrapped)
            _check_gradient(embeddings)
        return backward(embeddings)
    states, encoded = [], []
    again = most - len(parts) if wrapped.in_step else 0
    with torch.no_grad(), wrapped.met_everywhere():
        for piece in parts:
            states.append(_random_state())
            encoded.append(_named(encode(piece)))
            _check_any(encoded[-1], wrapped)
        leaves = {name: z_BD.requires_grad_() for name, z_BD in _joined(encoded).items()}
        between = _random_state()
        for _ in range(again):
            encode(parts[-1])
        if again > 0:
            _replay(between)
    shapes = [{name: z_bD.shape for name, z_bD in embeddings.items()} for embeddings in encoded]
    del encoded
    output = backward(leaves)
    after = _random_state()
    turns = list(enumerate(_cut_gradients(leaves, shapes)))
    number, gradients = turns[-1]
    turns += [(number, {name: torch.zeros_like(g_bD) for name, g_bD in gradients.items()})] * again
    for turn, (number, gradients) in enumerate(turns, start=1):
        _replay(states[number])
        # A cast of a weight that autocast kept from the first pass has no gradient.
        torch.clear_autocast_cache()
        with wrapped.averaging(last=turn == len(turns)):
            embeddings = dict(encode(parts[number]))
            _check_repeated(embeddings, shapes[number], number)
            _check_gradient(embeddings)
            known = [name for name, z_bD in embeddings.items() if name in gradients and z_bD.requires_grad]
            if known:
                torch.autograd.backward([embeddings[name] for name in known], [gradients[name] for name in known])
    _replay(after)
    return output


def _named(embeddings: object) -> dict[str, Tensor]:
    if not isinstance(embeddings, Mapping) or not all(isinstance(z, Tensor) for z in embeddings.values()):
        raise ConfigError(
            f"encode must give a mapping from modality to a (rows, width) tensor, got {embeddings!r:.200}"
        )
    return dict(embeddings)


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


def _cut_gradients(leaves: dict[str, Tensor], shapes: list[dict[str, torch.Size]]) -> list[dict[str, Tensor]]:
    """The gradient by the embeddings of each piece, of modalities that have one."""
    cut = {
        name: z_BD.grad.split_with_sizes([found[name][0] for found in shapes])
        for name, z_BD in leaves.items()
        if z_BD.grad is not None
    }
    return [{name: pieces[number] for name, pieces in cut.items()} for number in range(len(shapes))]


def _check_repeated(embeddings: dict[str, Tensor], shapes: dict[str, torch.Size], number: int) -> None:
    again = {name: z_bD.shape for name, z_bD in embeddings.items()}
    if again != shapes:
        first, second = ({name: tuple(shape) for name, shape in found.items()} for found in (shapes, again))
        raise ShapeError(
            f"encode gave shapes {first} for piece {number} in the first pass and {second} in the second; it must do "
            f"the same both times"
        )


def _check_any(embeddings: dict[str, Tensor], wrapped: Wrapped) -> None:
    if wrapped.modules and not embeddings:
        raise ConfigError(
            "encode gave no embeddings at all, so its modules would wait for each other; on a process without rows it "
            "encodes zero rows (`x[:0]`)"
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
