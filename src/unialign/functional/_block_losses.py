"""Losses of small, complete batches from full similarity matrices, for all pairs or modalities at once.

Each function returns None if it does not support the batch or the options; the caller then uses the general function.

Shapes: `M` modalities, `B` items, `D` dimension, `P` pairs of modalities; `r` the query modality, `m` another modality.
"""

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from unialign.batch import Batch
from unialign.functional._uniformity import Reduction
from unialign.ops import (
    ContrastBlocks,
    Kernel,
    KernelFunction,
    SigmoidBlocks,
    UniformityBlocks,
    different_ids,
    fits_blocks,
    key_losses,
    pair_losses,
    self_losses,
)

# Up to this number of rows, the full matrix is faster than tiles, although tiles compute each pair of rows only once.
_UNIFORMITY_ROWS = 512


def block_contrasts(
    batch: Batch, pairs: Sequence[tuple[int, int]], *, temperature: Tensor | float, label_smoothing: float = 0.0
) -> tuple[Tensor, ...] | None:
    """Return the `cosine_contrast` of each pair of modalities, or None."""
    if not pairs or not _fits(batch):
        return None
    ids_B = batch.ids_B
    if label_smoothing > 0:
        if not _different(ids_B):
            return None
        ids_B = None
    number, parameters = _scale(temperature)
    if not ContrastBlocks.supports(number):
        return None
    keys = different_ids(ids_B, batch.z_MBD.dtype)
    formula = ContrastBlocks(number, learned=len(parameters) > 0, keys=keys, smoothing=label_smoothing)
    return pair_losses(formula, batch.z_MBD, pairs, parameters)


def block_sigmoids(
    batch: Batch, pairs: Sequence[tuple[int, int]], *, scale: Tensor | float, bias: Tensor | float
) -> tuple[Tensor, ...] | None:
    """Return the `sigmoid_contrast` of each pair of modalities with a common scale and bias, or None."""
    numbers = _number(scale), _number(bias)
    if not pairs or not _fits(batch) or not SigmoidBlocks.supports(*numbers):
        return None
    parameters: tuple[Tensor, ...] = ()
    if isinstance(scale, Tensor) or isinstance(bias, Tensor):
        parameters = tuple(torch.as_tensor(value, device=batch.z_MBD.device) for value in (scale, bias))
    keys = different_ids(batch.ids_B, batch.z_MBD.dtype)
    formula = SigmoidBlocks(*numbers, learned=len(parameters) > 0, keys=keys)
    return pair_losses(formula, batch.z_MBD, pairs, parameters)


def block_uniformities(
    batch: Batch, modalities: Sequence[int], *, kernel: Kernel, temperature: float, reduction: Reduction | None = None
) -> tuple[Tensor, ...] | None:
    """Return the `unit_uniformity` of each modality with order 1, or None."""
    rate = KernelFunction(kernel, temperature).rate
    small = len(modalities) > 0 and batch.z_MBD.shape[1] >= 2
    if rate is None or rate > UniformityBlocks.LARGEST_RATE or not small or not _fits(batch, _UNIFORMITY_ROWS):
        return None
    if not _different(batch.ids_B):
        return None
    outer_log = reduction == "outer_log" or (reduction is None and kernel == "wang_isola")
    every = len(modalities) == len(batch.names)
    z_PBD = batch.z_MBD if every else torch.stack([batch.rows(m) for m in modalities])
    return self_losses(UniformityBlocks(rate, outer_log=outer_log), z_PBD)


def block_symile(
    z_MND: Tensor, *, rows_MMN: Tensor, temperature: Tensor | float, ids_N: Tensor | None
) -> tuple[Tensor, ...] | None:
    """Return `symile_sampled` for items with distinct ids, or None; each `rows_MMN[r, m]` is a permutation."""
    if not fits_blocks(z_MND, sharded=False) or not _different(ids_N):
        return None
    number, parameters = _scale(temperature)
    if not ContrastBlocks.supports(number):
        return None
    modalities, items, _ = z_MND.shape
    rows_MKN = rows_MMN.flatten(0, 1)[_others(modalities)].view(modalities, modalities - 1, items)
    z = z_MND.unbind(0)
    key_MND = torch.stack([_key(z, r, rows_MKN[r]) for r in range(modalities)])
    positive_N = _product(z).sum(-1) * (parameters[0] if parameters else number)
    keys = _other_tuples(rows_MKN, z_MND.dtype)
    formula = ContrastBlocks(number, learned=len(parameters) > 0, keys=keys, symmetric=False)
    return key_losses(formula, z_MND, key_MND, positive_N.expand(modalities, items), parameters)


def _fits(batch: Batch, largest: int | None = None) -> bool:
    options = {} if largest is None else {"largest": largest}
    return fits_blocks(batch.z_MBD, sharded=batch.shard is not None, **options) and batch.complete


def _different(ids_B: Tensor | None) -> bool:
    return ids_B is None or len(torch.unique(ids_B)) == len(ids_B)


def _scale(temperature: Tensor | float) -> tuple[float, tuple[Tensor, ...]]:
    """Return 1 / temperature as a number and, if the temperature is a tensor, also as a differentiable scalar."""
    if not isinstance(temperature, Tensor):
        return 1 / temperature, ()
    scale = temperature.reciprocal()
    return _number(scale), (scale,)


def _number(value: Tensor | float) -> float:
    return float(value.detach()) if isinstance(value, Tensor) else float(value)


def _product(rows: Sequence[Tensor]) -> Tensor:
    return reduce(torch.mul, rows)


def _others(modalities: int) -> list[int]:
    """Flat indices of the entries (r, m) with m != r in an M x M table."""
    every = range(modalities)
    return [r * modalities + m for r in every for m in every if m != r]


def _other_tuples(rows_MKN: Tensor, dtype: torch.dtype) -> Tensor:
    """(M, N, N) mask: 0 on the diagonal and for keys composed only of rows of the query's item, else 1."""
    modalities, _, items = rows_MKN.shape
    keys_MNN = torch.ones(modalities, items, items, dtype=dtype, device=rows_MKN.device)
    keys_MNN.diagonal(dim1=1, dim2=2).zero_()
    r, j = (rows_MKN[:, 1:] == rows_MKN[:, :1]).all(1).nonzero(as_tuple=True)
    keys_MNN[r, rows_MKN[r, 0, j], j] = 0
    return keys_MNN


def _key(z: Sequence[Tensor], r: int, rows_KN: Tensor) -> Tensor:
    others = [z_ND for m, z_ND in enumerate(z) if m != r]
    picked = [_Permuted.apply(z_ND, rows_N) for z_ND, rows_N in zip(others, rows_KN, strict=True)]  # type: ignore[no-untyped-call]
    return _product(picked)


class _Permuted(torch.autograd.Function):
    """The backward pass gathers rows by the inverse permutation instead of scatter-adding them."""

    @staticmethod
    def forward(ctx: Any, z_ND: Tensor, rows_N: Tensor) -> Tensor:
        ctx.save_for_backward(rows_N)
        return z_ND.index_select(0, rows_N)

    @staticmethod
    def backward(ctx: Any, g_ND: Tensor) -> tuple[Tensor, None]:
        (rows_N,) = ctx.saved_tensors
        return g_ND.index_select(0, torch.argsort(rows_N)), None
