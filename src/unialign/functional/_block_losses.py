"""Losses of small, complete batches from full similarity matrices, for all pairs or modalities at once.

Each function returns None if it does not support the batch or the options; the caller then uses the general function.

Shapes: `M` modalities, `B` items, `D` dimension, `P` pairs of modalities; `r` the query modality, `m` another modality.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from unialign.batch import Batch
from unialign.functional._uniformity import Reduction
from unialign.functional._value_order import pairs_in_value_order
from unialign.ops import (
    ContrastBlocks,
    Kernel,
    KernelFunction,
    SigmoidBlocks,
    UniformityBlocks,
    different_ids,
    fits_blocks,
    pair_losses,
    self_losses,
)

# Up to this number of rows, the full matrix is faster than tiles, although tiles compute each pair of rows only once.
_UNIFORMITY_ROWS = 512


def block_contrasts(
    batch: Batch, pairs: Sequence[tuple[int, int]], *, temperature: Tensor | float, label_smoothing: float = 0.0
) -> tuple[Tensor, ...] | None:
    if not pairs or not _fits(batch):
        return None
    ids_B = batch.ids_B
    if label_smoothing > 0:
        if not have_distinct_ids(ids_B):
            return None
        ids_B = None
    number, parameters = as_scale(temperature)
    if not ContrastBlocks.supports(number):
        return None
    keys = different_ids(ids_B, batch.z_MBD.dtype)
    formula = ContrastBlocks(number, learned=len(parameters) > 0, keys=keys, smoothing=label_smoothing)
    return _pair_losses(formula, batch.z_MBD, pairs, parameters)


def block_sigmoids(
    batch: Batch, pairs: Sequence[tuple[int, int]], *, scale: Tensor | float, bias: Tensor | float
) -> tuple[Tensor, ...] | None:
    numbers = _number(scale), _number(bias)
    if not pairs or not _fits(batch) or numbers[0] == 0:
        return None
    parameters: tuple[Tensor, ...] = ()
    if isinstance(scale, Tensor) or isinstance(bias, Tensor):
        parameters = tuple(torch.as_tensor(value, device=batch.z_MBD.device) for value in (scale, bias))
    keys = different_ids(batch.ids_B, batch.z_MBD.dtype)
    if keys is not None:
        keys.fill_diagonal_(1)
    formula = SigmoidBlocks(*numbers, learned=len(parameters) > 0, keys=keys)
    return _pair_losses(formula, batch.z_MBD, pairs, parameters)


def block_uniformities(
    batch: Batch, modalities: Sequence[int], *, kernel: Kernel, temperature: float, reduction: Reduction | None = None
) -> tuple[Tensor, ...] | None:
    rate = KernelFunction(kernel, temperature).rate
    small = len(modalities) > 0 and batch.z_MBD.shape[1] >= 2
    if rate is None or rate > UniformityBlocks.LARGEST_RATE or not small or not _fits(batch, _UNIFORMITY_ROWS):
        return None
    if not have_distinct_ids(batch.ids_B):
        return None
    outer_log = reduction == "outer_log" or (reduction is None and kernel == "wang_isola")
    every = len(modalities) == len(batch.names)
    z_PBD = batch.z_MBD if every else torch.stack([batch.rows(m) for m in modalities])
    return self_losses(UniformityBlocks(rate, outer_log=outer_log), z_PBD)


def _pair_losses(
    formula: ContrastBlocks | SigmoidBlocks,
    z_MBD: Tensor,
    pairs: Sequence[tuple[int, int]],
    parameters: tuple[Tensor, ...],
) -> tuple[Tensor, ...]:
    ordered, places = pairs_in_value_order(z_MBD, pairs)
    values = pair_losses(formula, z_MBD, ordered, parameters)
    return values if len(values) == 1 else tuple(values[place] for place in places)


def _fits(batch: Batch, largest: int | None = None) -> bool:
    options = {} if largest is None else {"largest": largest}
    return fits_blocks(batch.z_MBD, sharded=batch.shard is not None, **options) and batch.complete


def have_distinct_ids(ids_B: Tensor | None) -> bool:
    return ids_B is None or len(torch.unique(ids_B)) == len(ids_B)


def as_scale(temperature: Tensor | float) -> tuple[float, tuple[Tensor, ...]]:
    """Return 1 / temperature as a number and, if the temperature is a tensor, also as a differentiable scalar."""
    if not isinstance(temperature, Tensor):
        return 1 / temperature, ()
    scale = temperature.reciprocal()
    return _number(scale), (scale,)


def _number(value: Tensor | float) -> float:
    return float(value.detach()) if isinstance(value, Tensor) else float(value)
