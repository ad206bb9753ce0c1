"""Compute contrastive losses of any logits in tiles, without an N x N matrix.

Let l_ij be the logit of query i and key j. Sums over j run over the k_i keys that are the positive (j = i) or have
another id. With r_i = log sum_j exp(l_ij) and c_i = log sum_j exp(l_ji), the loss is

    1/(2N) sum_i [ r_i + c_i - 2 w l_ii - s (mean_j l_ij + mean_j l_ji) ]

where s is the label smoothing, and w is 1 - s, or 0 for the log-partitions alone. The derivative with
respect to l_ij is (exp(l_ij - r_i) + exp(l_ij - c_j) - s (1/k_i + 1/k_j)) / (2N), minus w / N on the diagonal.

There are three implementations: a reference with the full matrix and autograd; a single tile, which computes value and
gradients in one pass; and many tiles, with a second pass for the gradients.

Shapes: `N` selected rows.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from unialign._single_backward import first_order_only
from unialign.ops._backend import current_backend
from unialign.ops._contrast_tiles import ContrastOptions, ContrastTiles, LogPartitions
from unialign.ops._logits import Logits
from unialign.ops._row_selection import RowSelection
from unialign.ops._tiles import SIDE

# Up to this number of rows, the full matrix is computed as a single tile.
_ONE_TILE = 1024


def mean_contrast(
    make: Callable[..., Logits],
    tensors: tuple[Tensor, ...],
    positive_logits_N: Tensor,
    *,
    selection: RowSelection,
    symmetric: bool = True,
    label_smoothing: float = 0.0,
    positive_weight: float | None = None,
    side: int | None = None,
) -> Tensor:
    """Return the loss defined in the module docstring; 0 without rows. Every process computes the full loss.

    `positive_logits_N` must be more accurate than a matrix product, since the terms nearly cancel in a trained space.
    Without `symmetric`, the loss is over rows only, 1/N sum_i [ r_i - w l_ii - s mean_j l_ij ]. The tile size `side`
    does not affect the result.
    """
    weight = 1 - label_smoothing if positive_weight is None else positive_weight
    if side is None:
        side = _ONE_TILE if selection.size <= _ONE_TILE else SIDE
    options = ContrastOptions(2 if symmetric else 1, label_smoothing, weight, side)
    if current_backend() == "reference":
        return _reference(make(*tensors), positive_logits_N, selection, options)
    value: Tensor = _MeanContrast.apply(make, selection.unsharded(), options, positive_logits_N, *tensors)  # type: ignore[no-untyped-call]
    return value


class _MeanContrast(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        make: Callable[..., Logits],
        selection: RowSelection,
        options: ContrastOptions,
        positive_logits_N: Tensor,
        *tensors: Tensor,
    ) -> Tensor:
        tiles = ContrastTiles(make(*tensors), positive_logits_N, selection, options)
        value, partitions = tiles.value()
        ctx.rest = make, selection, options
        ctx.one_tile = any(ctx.needs_input_grad) and selection.size <= options.side
        if ctx.one_tile:
            ctx.save_for_backward(positive_logits_N, *tensors, *tiles.gradients(partitions, of_last_tile=True))
        else:
            ctx.shifted = partitions.shifted
            ctx.save_for_backward(positive_logits_N, *tensors, *partitions.logs)
        return positive_logits_N.new_tensor(value)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # read only once, since activation checkpointing allows a single access
        make, selection, options = ctx.rest
        with torch.no_grad():
            if ctx.one_tile:
                gradients = [gradient * g for gradient in saved[len(saved) // 2 :]]
            else:
                (positive_logits_N, *tensors), logs = saved[: -options.directions], saved[-options.directions :]
                tiles = ContrastTiles(make(*tensors), positive_logits_N, selection, options)
                gradients = [gradient.mul_(g) for gradient in tiles.gradients(LogPartitions([*logs], ctx.shifted))]
        return None, None, None, *(first_order_only(gradient, g, *saved) for gradient in gradients)


def _reference(logits: Logits, positive_logits_N: Tensor, selection: RowSelection, options: ContrastOptions) -> Tensor:
    if selection.size == 0:
        return positive_logits_N.sum()
    whole = slice(0, selection.size)
    diagonal_NN = torch.eye(selection.size, dtype=torch.bool, device=positive_logits_N.device)
    logit_NN = torch.where(diagonal_NN, positive_logits_N[:, None], logits.dense())
    masked_NN = selection.masked_table(positive_logits_N.device, self_pairs="included")
    also_masked_NN = logits.masked(whole, whole)
    if also_masked_NN is not None:
        masked_NN = masked_NN | also_masked_NN & ~diagonal_NN
    total = positive_logits_N.new_zeros(())
    for dim in (1, 0)[: options.directions]:
        partition_N = torch.logsumexp(logit_NN.masked_fill(masked_NN, -torch.inf), dim)
        total = total + (partition_N - options.positive_weight * positive_logits_N).sum()
        if options.smoothing > 0:
            keys_N = (~masked_NN).sum(dim)
            total = total - options.smoothing * (logit_NN.masked_fill(masked_NN, 0.0).sum(dim) / keys_N).sum()
    return total / (selection.size * options.directions)
