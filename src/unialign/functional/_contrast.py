"""Compute InfoNCE of matched rows, with support for missing modalities, ids and label smoothing.

Items that lack one of the two modalities are excluded from both means. Keys with the query's id, except the positive,
are excluded from the softmax. Label smoothing s follows `torch.nn.functional.cross_entropy`: the target is 1 - s for
the positive, plus s spread evenly over all unmasked keys.

Shapes: `B` items, `N` selected items, `D` dimension.
"""

import torch
from torch import Tensor

from unialign.functional._value_order import in_value_order
from unialign.ops import (
    CosineLogits,
    KernelFunction,
    RowSelection,
    log_row_sums,
    mean_contrast,
    mean_excess,
    rowwise_backend,
)


def cosine_contrast(
    x_BD: Tensor, y_BD: Tensor, selection: RowSelection, *, temperature: Tensor | float, label_smoothing: float = 0.0
) -> Tensor:
    """Return the mean of the row-wise and column-wise cross-entropy of x y^T / temperature with diagonal targets.

    Args:
        x_BD, y_BD: unit rows.
        selection: items that have both modalities (`unialign.ops.select_items`).
        temperature: tau > 0; differentiable if it is a tensor.

    Returns:
        A scalar of at least 0; 0 with zero gradient if no items are selected.
    """
    x_ND, y_ND = in_value_order(selection.take(x_BD), selection.take(y_BD))
    scale = 1 / torch.as_tensor(temperature, dtype=x_BD.dtype, device=x_BD.device)
    backend = rowwise_backend(x_ND, sharded=selection.shard is not None)
    if backend is None:
        positive_N = (x_ND * y_ND).sum(-1) * scale
        return mean_contrast(
            CosineLogits, (x_ND, y_ND, scale), positive_N, selection=selection, label_smoothing=label_smoothing
        )
    excess = mean_excess(x_ND, y_ND, scale, selection=selection, backend=backend)
    if label_smoothing == 0:
        return excess
    positive = (x_ND * y_ND).sum() / max(1, selection.size)
    return excess + label_smoothing * scale * (positive - _mean_cosine(x_ND, y_ND, selection))


def self_contrast(z_BD: Tensor, selection: RowSelection, *, temperature: float) -> Tensor:
    """Return the `cosine_contrast` of rows with themselves, at half the cost because the logits are symmetric."""
    z_ND = selection.take(z_BD)
    if len(z_ND) == 0:
        return z_BD.sum() * 0.0
    sums_N = log_row_sums(z_ND, kernel=KernelFunction("clip", temperature), selection=selection)
    # log sum_k exp(l_ik) - l_ii = softplus(log sum_{k != i} exp(l_ik) - l_ii). With l_ii in the sum, the gradient would
    # be the difference of two nearly equal vectors where the loss is near 0.
    return torch.nn.functional.softplus(sums_N - ((z_ND * z_ND).sum(-1) - 1) / temperature, threshold=80.0).mean()


def _mean_cosine(x_ND: Tensor, y_ND: Tensor, selection: RowSelection) -> Tensor:
    """1/(2N) sum_i [ mean_j <x_i, y_j> + mean_j <x_j, y_i> ] over the keys of i, without an N x N matrix."""
    keys_N = selection.others(x_ND.dtype, x_ND.device) + 1
    total = (x_ND / keys_N[:, None]).sum(0) @ y_ND.sum(0) + x_ND.sum(0) @ (y_ND / keys_N[:, None]).sum(0)
    if selection.codes_N is not None:
        codes_N = selection.codes_N.long()
        groups = int(codes_N[-1]) + 1 if len(codes_N) else 0
        x_GD, y_GD = (z_ND.new_zeros(groups, z_ND.shape[1]).index_add(0, codes_N, z_ND) for z_ND in (x_ND, y_ND))
        keys_G = keys_N.new_ones(groups).index_copy(0, codes_N, keys_N)
        # Exclude keys with the query's id, except the positive.
        total = total - (2 * (x_GD * y_GD).sum(-1) / keys_G).sum() + (2 * (x_ND * y_ND).sum(-1) / keys_N).sum()
    return total / max(1, 2 * len(x_ND))
