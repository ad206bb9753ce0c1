"""A training loop that keeps to its start: decay towards the initial weights, snapshots, and a memory queue.

Without these, the loop takes the steps of `unialign.fit` for heads without dropout; a test compares the weights.

Shapes: `N` training rows, `B` rows of a batch, `W` dimension of features.
"""

import copy
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from unialign.config import TrainConfig
from unialign.data import EmbeddingStore
from unialign.losses import MemoryQueue, create
from unialign.space import Space
from unialign.train import derived_seed, learning_rate, make_adamw

__all__ = ["interpolated", "mean_weights", "train_heads"]


def train_heads(
    start: Space,
    store: EmbeddingStore,
    config: TrainConfig,
    *,
    decay_to_start: float = 0.0,
    queue_size: int = 0,
    on_epoch: Callable[[int, Space], None] | None = None,
) -> Space:
    """Train a copy of the heads on the training rows of a store.

    Args:
        decay_to_start: lambda of W <- W - lr lambda (W - W_0), the decoupled decay of AdamW around the initial weights
            W_0 instead of 0 (L2-SP, Li et al. 2018, in its decoupled form).
        queue_size: number of rows of earlier batches that are additional negatives; 0: none.
        on_epoch: called after each epoch with its number, from 1, and the space.
    """
    space = copy.deepcopy(start).train()
    names, rows_N = tuple(config.modalities or store.modalities), store.rows("train")
    present = {name: torch.from_numpy(store.present(name)[rows_N].copy()) for name in names}
    raw = {name: torch.from_numpy(np.array(store.array(name)[rows_N])).float() for name in names}
    with torch.no_grad():
        prepared = {name: space.prepare(name, x_NW, present=present[name]) for name, x_NW in raw.items()}
    objective = create(config.objective, **config.objective_options)
    similarity = _standardized(raw, present) if objective.needs_similarity() else None
    ids_N = torch.from_numpy(store.ids[rows_N].copy())
    repeated = len(torch.unique(ids_N)) < len(ids_N)
    if not repeated:
        ids_N = torch.arange(len(rows_N))
    queue = MemoryQueue(queue_size) if queue_size else None
    parameters = {f"space.{name}": p for name, p in space.named_parameters() if p.requires_grad}
    parameters |= {f"objective.{name}": p for name, p in objective.named_parameters() if p.requires_grad}
    initial = {name: p.detach().clone() for name, p in parameters.items() if name.startswith("space.")}
    optimizer = make_adamw(parameters, "space.", lr=config.lr, weight_decay=config.weight_decay, fused=True)
    full, rest = divmod(len(rows_N), config.batch_size)
    per_epoch = full + (rest >= 2)
    steps = config.epochs * per_epoch
    for step in range(steps):
        epoch, place = divmod(step, per_epoch)
        if place == 0:
            generator = torch.Generator().manual_seed(derived_seed("order", config.seed, epoch))
            order_N = torch.randperm(len(rows_N), generator=generator, dtype=torch.int32).long()
        rows_B = order_N[place * config.batch_size : (place + 1) * config.batch_size]
        there = {name: mask[rows_B] for name, mask in present.items() if not bool(mask.all())} or None
        optimizer.zero_grad(set_to_none=True)
        z = space.project({name: x_NW[rows_B] for name, x_NW in prepared.items()}, present=there)
        call: dict[str, object] = {"present": there}
        if repeated or queue is not None:
            call["ids"] = ids_N[rows_B]
        if similarity is not None:
            call["similarity"] = {name: x_NW[rows_B] for name, x_NW in similarity.items()}
        if queue is not None:
            call["queue"] = queue
        objective(z, **call).total.backward()
        if queue is not None:
            queue.push({name: rows.detach() for name, rows in z.items()}, present=there, ids=ids_N[rows_B])
        if config.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(list(parameters.values()), config.max_grad_norm, foreach=True)
        lr = learning_rate(
            step, steps=steps, warmup=round(config.warmup_ratio * steps), highest=config.lr, lowest=config.min_lr
        )
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        if decay_to_start:
            with torch.no_grad():
                for name, weight in initial.items():
                    parameters[name].lerp_(weight, min(1.0, lr * decay_to_start))
        if on_epoch is not None and place == per_epoch - 1:
            on_epoch(epoch + 1, space)
    return space.eval()


def interpolated(start: Space, end: Space, share: float) -> Space:
    """Return the space with the weights (1 - share) start + share end."""
    return mean_weights([start, end], [1 - share, share])


def mean_weights(spaces: Sequence[Space], weights: Sequence[float] | None = None) -> Space:
    """Return a space with the weighted mean of the parameters; the spaces must have the same features."""
    chosen = [1 / len(spaces)] * len(spaces) if weights is None else list(weights)
    mean = copy.deepcopy(spaces[0])
    others = [dict(space.named_parameters()) for space in spaces]
    with torch.no_grad():
        for name, parameter in mean.named_parameters():
            parameter.zero_()
            for weight, other in zip(chosen, others, strict=True):
                parameter.add_(other[name], alpha=weight)
    return mean.eval()


def _standardized(raw: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for name, x_NW in raw.items():
        own = x_NW[present[name]]
        deviation_W = own.std(0, unbiased=False).clamp(min=1e-6)
        found[name] = torch.where(present[name][:, None], (x_NW - own.mean(0)) / deviation_W, 0.0)
    return found
