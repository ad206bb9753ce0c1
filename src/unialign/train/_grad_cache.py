"""Gradient cache: exact loss and gradient of a batch that is too large for one pass of the encoders.

Gao, Zhang, Han, Callan (2021), "Scaling deep contrastive learning batch size under memory limited setup", section 3.2:
dL/dw = sum_p (dL/dz_p)^T dz_p/dw over micro-batches p. The loss requires all embeddings z but no encoder activations;
the encoders require dL/dz of one micro-batch at a time. Hence three steps:

1. `_embed_without_graph`: encode each micro-batch without gradient, after recording the random state.
2. `_loss_backward`: compute the loss of all embeddings and its gradient with respect to them.
3. `_encoder_backward`: encode each micro-batch again with the same random state and with gradient, and continue the
   backward pass from the gradient of its embeddings.

Shapes: `B` rows of the whole batch, `b` rows of a micro-batch, `D` dimension.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, TypeVar, Unpack

import torch
from torch import Tensor, nn

from unialign._checks import check_number
from unialign.batch import Batch, ZeroRows
from unialign.distributed import processes_of
from unialign.errors import ConfigError, ShapeError
from unialign.losses import CallArguments, LossOutput, LossTerm, Objective, weighted_sum
from unialign.train._ddp import SynchronizedModules

MicroBatch = TypeVar("MicroBatch")
Encode = Callable[[MicroBatch], Mapping[str, Tensor]]
# States of the CPU generator and of the generators of all CUDA devices (empty if CUDA is not in use).
RandomState = tuple[Tensor, list[Tensor]]

# Called with the objective, the whole batch and its differentiable terms.
BeforeBackward = Callable[[Objective, Batch, dict[str, LossTerm]], None]


def grad_cache_backward(
    objective: Objective,
    encode: Encode[MicroBatch],
    micro_batches: Iterable[MicroBatch],
    *,
    present: Mapping[str, Tensor] | None = None,
    ids: Tensor | None = None,
    group: Any = "auto",
    modules: Iterable[nn.Module] = (),
    weight: float = 1.0,
    before_backward: BeforeBackward | None = None,
    zero_rows: ZeroRows = "error",
    **call: Unpack[CallArguments],
) -> LossOutput:
    """Run the forward and backward pass of a loss with the activations of only one micro-batch in memory at a time.

    Value and gradient equal those of `objective(encode(whole batch)).total.backward()` up to rounding. Each micro-batch
    is encoded twice: first without gradient, then with gradient and the same random numbers, so dropout masks repeat
    exactly. A single micro-batch is encoded once, unless another process has several and `modules` are given.

    If the batch is distributed over processes, each process passes any number of micro-batches of its own rows, or
    none. The mean of the gradients over processes is then the gradient of the whole batch; the gradient of a process
    without micro-batches is zero (its `.grad` stays None). DDP and FSDP2 compute this mean if their modules are in
    `modules`.

    Further keyword arguments are `temperature`, `logit_scale`, `logit_bias`, `negatives` and `queue`, as for the
    objective. The loss is computed once, so their gradients are added once. Do not put parameters that only the loss
    uses into DDP `modules`: DDP expects their gradients in the backward pass of the encoders, and each process already
    has the whole gradient.

    Examples:
        >>> import torch, unialign
        >>> from unialign.train import grad_cache_backward
        >>> model = torch.nn.ModuleDict({"image": torch.nn.Linear(6, 4), "text": torch.nn.Linear(5, 4)})
        >>> objective = unialign.losses.create("infonce")
        >>> batch = {"image": torch.randn(32, 6), "text": torch.randn(32, 5)}
        >>> parts = [{name: x[at : at + 8] for name, x in batch.items()} for at in range(0, 32, 8)]
        >>> out = grad_cache_backward(objective, lambda part: {m: model[m](x) for m, x in part.items()}, parts)
        >>> tuple(model["image"].weight.grad.shape)
        (4, 6)

    Args:
        objective: any objective; gradients of its parameters, such as a temperature, are added once.
        encode: function that maps a micro-batch to a mapping from modality to (b, D) raw embeddings with gradient. It
            must open its own autocast block, use only PyTorch's default random generators, and be deterministic given
            their state. Layers that update statistics in training, such as batch normalization, update them twice and
            see one micro-batch at a time.
        micro_batches: arguments of `encode`, in row order; numbers of rows may differ or be zero.
        present, ids: masks and ids of the whole batch, as for the objective.
        group: processes that share a batch, as for the objective.
        modules: DistributedDataParallel and FSDP2 (`fully_shard`) modules inside `encode`, the same modules in the same
            order on every process. Their gradients are averaged once, with the last micro-batch. Each process must pass
            at least one micro-batch, possibly with zero rows (`x[:0]`), and call all modules. If it has no rows of a
            modality, it must call the encoder on placeholder rows that `present` marks as absent, unless a single DDP
            module with `find_unused_parameters=True` contains all encoders. Under FSDP2, a process with fewer
            micro-batches than others repeats its last micro-batch with zero gradient, and keeps unsharded gradients
            until its last pass.
        weight: factor on the gradient, for gradient accumulation over several batches.
        before_backward: called with the objective, the whole batch and its differentiable terms.
        zero_rows: as for the objective.

    Returns:
        The loss of the whole batch, detached. Gradients have been added to `.grad`.

    Raises:
        ConfigError: a single process has no micro-batch, modules are of an unsupported type, or embeddings have no
            gradient. With `modules`, it is raised on every process if a process has no micro-batch, has other modules,
            or does not call a module that other processes call.
        DistributedError: under DDP, on the other processes if a process fails in the first pass.
        ShapeError: micro-batches differ in modalities or dims, or the two passes return different shapes.
        NonFiniteError: as for the objective, with row numbers of the whole batch.
    """
    if not torch.is_grad_enabled():
        raise ConfigError("grad_cache_backward computes gradients; call it outside `no_grad` and `inference_mode`")
    check_number("weight", weight, "a finite number", lambda x: abs(x) < torch.inf)
    parts, synchronized = list(micro_batches), SynchronizedModules(modules)
    most = synchronized.max_micro_batches(len(parts))
    if not parts:
        if synchronized.modules or processes_of(group) is None:
            raise ConfigError("grad_cache_backward needs at least one micro-batch, got none")
        # Drop empty masks, which would declare a modality as present.
        present = {name: mask for name, mask in (present or {}).items() if mask.numel() > 0}
    options: dict[str, Any] = {"present": present, "ids": ids, "group": group, "zero_rows": zero_rows, **call}
    loss_backward = partial(_loss_backward, objective, options, weight, before_backward)
    if not parts:
        return loss_backward({})
    if most == 1:
        # No process needs a second pass.
        with synchronized.checked_forward():
            embeddings = _check_embeddings(encode(parts[0]), synchronized)
            _check_gradient(embeddings)
        return loss_backward(embeddings)
    # FSDP2 communicates in every forward pass, so all processes must run the same number of passes.
    extra = most - len(parts) if synchronized.forward_communicates else 0
    embeddings, shapes, states = _embed_without_graph(encode, parts, synchronized, extra)
    output = loss_backward(embeddings)
    after = _random_state()
    _encoder_backward(encode, parts, synchronized, extra, _split_gradients(embeddings, shapes), shapes, states)
    _set_random_state(after)
    return output


def _embed_without_graph(
    encode: Encode[MicroBatch], parts: list[MicroBatch], synchronized: SynchronizedModules, extra: int
) -> tuple[dict[str, Tensor], list[dict[str, torch.Size]], list[RandomState]]:
    """Return leaf embeddings of the whole batch, and the shapes and random state of each micro-batch."""
    states, encoded = [], []
    with torch.no_grad(), synchronized.checked_forward():
        for part in parts:
            states.append(_random_state())
            encoded.append(_check_embeddings(encode(part), synchronized))
        leaves = {name: z_BD.requires_grad_() for name, z_BD in _concatenate(encoded).items()}
        before_extra = _random_state()
        for _ in range(extra):
            encode(parts[-1])
        if extra > 0:
            _set_random_state(before_extra)
    return leaves, [{name: z_bD.shape for name, z_bD in embeddings.items()} for embeddings in encoded], states


def _loss_backward(
    objective: Objective,
    options: dict[str, Any],
    weight: float,
    before_backward: BeforeBackward | None,
    embeddings: Mapping[str, Tensor],
) -> LossOutput:
    """If the embeddings have a graph, the backward pass continues through the encoders."""
    batch, terms = objective.compute(embeddings, **options)
    if before_backward is not None:
        before_backward(objective, batch, terms)
    total = weighted_sum(batch, terms)
    torch.autograd.backward(total if weight == 1 else total * weight)
    return LossOutput(total.detach(), {name: term.value.detach() for name, term in terms.items()})


def _encoder_backward(
    encode: Encode[MicroBatch],
    parts: list[MicroBatch],
    synchronized: SynchronizedModules,
    extra: int,
    gradients: list[dict[str, Tensor]],
    shapes: list[dict[str, torch.Size]],
    states: list[RandomState],
) -> None:
    last = len(parts) - 1
    zeros = {name: torch.zeros_like(g_bD) for name, g_bD in gradients[last].items()}
    passes = [*enumerate(gradients), *[(last, zeros)] * extra]
    for count, (number, gradient) in enumerate(passes, start=1):
        _set_random_state(states[number])
        # Weight casts that autocast cached in the first pass have no gradient.
        torch.clear_autocast_cache()
        with synchronized.gradient_sync(enabled=count == len(passes)):
            embeddings = dict(encode(parts[number]))
            _check_repeated(embeddings, shapes[number], number)
            _check_gradient(embeddings)
            names = [name for name, z_bD in embeddings.items() if name in gradient and z_bD.requires_grad]
            if names:
                torch.autograd.backward([embeddings[name] for name in names], [gradient[name] for name in names])


def _concatenate(encoded: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    names = list(encoded[0])
    for number, embeddings in enumerate(encoded):
        if set(embeddings) != set(names):
            raise ShapeError(
                f"micro-batch {number} has the modalities {list(embeddings)}, but micro-batch 0 has {names}; every "
                f"micro-batch must have the same modalities (use `present=` for items with missing modalities)"
            )
        for name, z_bD in embeddings.items():
            if z_bD.ndim != 2 or z_bD.shape[1] != encoded[0][name].shape[-1]:
                raise ShapeError(
                    f"{name!r} has shape {tuple(z_bD.shape)} in micro-batch {number}, but "
                    f"{tuple(encoded[0][name].shape)} in micro-batch 0; expected (rows, dim) with the same dim"
                )
    return {name: torch.cat([embeddings[name] for embeddings in encoded]) for name in names}


def _split_gradients(leaves: dict[str, Tensor], shapes: list[dict[str, torch.Size]]) -> list[dict[str, Tensor]]:
    split = {
        name: z_BD.grad.split_with_sizes([found[name][0] for found in shapes])
        for name, z_BD in leaves.items()
        if z_BD.grad is not None
    }
    return [{name: parts[number] for name, parts in split.items()} for number in range(len(shapes))]


def _check_embeddings(embeddings: object, synchronized: SynchronizedModules) -> dict[str, Tensor]:
    if not isinstance(embeddings, Mapping) or not all(isinstance(z, Tensor) for z in embeddings.values()):
        raise ConfigError(
            f"encode must return a mapping from modality to tensor of shape (rows, dim), got {embeddings!r:.200}"
        )
    if synchronized.modules and not embeddings:
        raise ConfigError(
            "encode returned no embeddings, so modules on different processes would wait for each other; "
            "on a process without rows, encode zero rows (`x[:0]`)"
        )
    return dict(embeddings)


def _check_repeated(embeddings: dict[str, Tensor], shapes: dict[str, torch.Size], number: int) -> None:
    repeated = {name: z_bD.shape for name, z_bD in embeddings.items()}
    if repeated != shapes:
        first, second = ({name: tuple(shape) for name, shape in found.items()} for found in (shapes, repeated))
        raise ShapeError(
            f"encode returned shapes {first} for micro-batch {number} in the first pass, but {second} in the second "
            f"pass; it must return the same shapes in both passes"
        )


def _check_gradient(embeddings: dict[str, Tensor]) -> None:
    if embeddings and not any(isinstance(z, Tensor) and z.requires_grad for z in embeddings.values()):
        raise ConfigError(
            "encode returned embeddings without gradient, so nothing would be trained; remove `no_grad` and `detach`"
        )


def _random_state() -> RandomState:
    # Do not query unused CUDA devices, which would initialize CUDA.
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    return torch.get_rng_state(), cuda


def _set_random_state(state: RandomState) -> None:
    cpu, cuda = state
    torch.set_rng_state(cpu)
    if cuda:
        torch.cuda.set_rng_state_all(cuda)
