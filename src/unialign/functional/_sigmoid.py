"""Compute the pairwise sigmoid loss (SigLIP, Zhai et al. 2023, Eq. 1), a binary classification of each pair of rows.

Shapes: `B` items, `N` items with both modalities, `D` dimension.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from unialign.functional._value_order import in_value_order
from unialign.ops import RowSelection, softplus_total


def sigmoid_contrast(
    x_BD: Tensor,
    y_BD: Tensor,
    selection: RowSelection,
    *,
    scale: Tensor | float,
    bias: Tensor | float,
    features: Sequence[Tensor] = (),
) -> Tensor:
    """Return -(1/N) sum_ij log sigma(y_ij (scale <x_i, y_j> + bias)), with y_ij = 1 on the diagonal and -1 elsewhere.

    Off-diagonal pairs with equal ids are excluded. Since softplus(-l) = softplus(l) - l, the sum equals the softplus of
    all logits minus the logits on the diagonal.

    Args:
        x_BD, y_BD: unit rows.
        selection: items that have both modalities (`unialign.ops.select_items`).
        features: up to two (B, W) tensors f; the losses of negative pairs are multiplied by exp(-max(0, <f_i, f_j>)) of
            each.

    Returns:
        A scalar of at least 0; 0 with zero gradient if no items are selected.
    """
    x_ND, y_ND = in_value_order(selection.take(x_BD), selection.take(y_BD))
    scale, bias = (torch.as_tensor(value, dtype=x_BD.dtype, device=x_BD.device) for value in (scale, bias))
    positive = ((x_ND * y_ND).sum(-1) * scale + bias).sum()
    taken = [selection.take(x_BW) for x_BW in features]
    total = softplus_total(x_ND, y_ND, scale, bias, selection=selection, features=taken)
    return (total - positive) / max(1, selection.size)
