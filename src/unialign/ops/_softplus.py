"""Sum softplus over all pairs of two sets of rows in one pass over tiles, for the pairwise sigmoid loss.

    sum_ij w_ij softplus(l_ij) with l_ij = scale <x_i, y_j> + bias, over pairs with different ids and the pairs (i, i)

The weights w_ij are 1, or the products of exp(-max(0, <f_i, f_j>)) over given features f for i != j.
The derivative with respect to l_ij is w_ij sigmoid(l_ij), which does not depend on other pairs, so one pass computes
both value and gradient. With several processes, each process computes the tiles of its local x against all y and of its
local y against all x; three scalars are gathered.

Shapes: `N` selected rows, `R` local rows, `D` dimension, `I` rows and `J` columns of a tile.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from unialign._single_backward import first_order_only
from unialign.ops._backend import current_backend
from unialign.ops._row_selection import RowSelection
from unialign.ops._tiles import SIDE, rectangle


def softplus_total(
    x_ND: Tensor,
    y_ND: Tensor,
    scale: Tensor,
    bias: Tensor,
    *,
    selection: RowSelection,
    features: Sequence[Tensor] = (),
    side: int = SIDE,
) -> Tensor:
    """sum_ij w_ij softplus(l_ij). Each process gets the gradients of scale and bias over all pairs."""
    if current_backend() == "reference":
        logit_NN = x_ND @ y_ND.mT * scale + bias
        masked_NN = selection.masked_table(x_ND.device, self_pairs="included")
        value_NN = functional.softplus(logit_NN).masked_fill(masked_NN, 0.0)
        for f_NW in features:
            value_NN = value_NN * torch.exp(-(f_NW @ f_NW.mT).clamp(min=0).fill_diagonal_(0.0))
        return value_NN.sum()
    total: Tensor = _SoftplusTotal.apply(x_ND, y_ND, scale, bias, selection, tuple(features), side)  # type: ignore[no-untyped-call]
    return total


class _SoftplusTotal(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_ND: Tensor,
        y_ND: Tensor,
        scale: Tensor,
        bias: Tensor,
        selection: RowSelection,
        features: tuple[Tensor, ...],
        side: int,
    ) -> Tensor:
        with_gradient, factor, shard = any(ctx.needs_input_grad), float(scale), selection.shard
        by_x_RD, by_y_RD = (torch.zeros_like(selection.local(z_ND)) if with_gradient else None for z_ND in (x_ND, y_ND))
        sum_tiles = partial(
            _sum_tiles, scale=factor, bias=float(bias), selection=selection, features=features, side=side
        )
        total, by_bias = sum_tiles(x_ND, y_ND, by_x_RD, by_y_RD if shard is None else None)
        by_scale = 0.0
        if by_x_RD is not None and by_y_RD is not None:
            by_scale = float((by_x_RD * selection.local(x_ND)).sum(dtype=torch.float64))
            if shard is not None:
                sum_tiles(y_ND, x_ND, by_y_RD, None)
        if shard is not None:
            local_3 = torch.tensor([total, by_scale, by_bias], dtype=torch.float64, device=x_ND.device)
            total, by_scale, by_bias = shard.gather_numbers(local_3).sum(0).tolist()
        if by_x_RD is not None and by_y_RD is not None:
            gradients = [selection.scatter(by_RD.mul_(factor), x_ND) for by_RD in (by_x_RD, by_y_RD)]
            by_scalars = (scale.new_tensor(by_scale).reshape(scale.shape), bias.new_tensor(by_bias))
            ctx.save_for_backward(x_ND, y_ND, scale, bias, *gradients, *by_scalars)
        return x_ND.new_tensor(total)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # read only once, since activation checkpointing allows a single access
        with torch.no_grad():
            gradients = [gradient * g for gradient in saved[4:]]
        return (*(first_order_only(gradient, g, *saved) for gradient in gradients), None, None, None)


def _sum_tiles(
    x_ND: Tensor,
    y_ND: Tensor,
    by_x_RD: Tensor | None,
    by_y_ND: Tensor | None,
    *,
    scale: float,
    bias: float,
    selection: RowSelection,
    features: tuple[Tensor, ...],
    side: int,
) -> tuple[float, float]:
    """Return the weighted sum of softplus over local x and all y and, if `by_x_RD` is given, that of sigmoid."""
    x_RD, total, by_bias = selection.local(x_ND), 0.0, 0.0
    for i, j in rectangle(len(x_RD), len(y_ND), side=side):
        logit_IJ = (x_RD[i] * scale @ y_ND[j].mT).add_(bias)
        weight_IJ = _pair_weights(features, selection, i, j)
        value_IJ = functional.softplus(logit_IJ)
        if weight_IJ is not None:
            value_IJ.mul_(weight_IJ)
        selection.mask_(value_IJ, i, j, 0.0, self_pairs="included")
        total += float(value_IJ.sum(1).double().sum())
        if by_x_RD is not None:
            slope_IJ = logit_IJ.sigmoid_()
            if weight_IJ is not None:
                slope_IJ.mul_(weight_IJ)
            selection.mask_(slope_IJ, i, j, 0.0, self_pairs="included")
            by_bias += float(slope_IJ.sum(1).double().sum())
            by_x_RD[i].addmm_(slope_IJ, y_ND[j])
            if by_y_ND is not None:
                by_y_ND[j].addmm_(slope_IJ.mT, x_RD[i])
    return total, by_bias


def _pair_weights(features: tuple[Tensor, ...], selection: RowSelection, i: slice, j: slice) -> Tensor | None:
    """Products of exp(-max(0, <f_i, f_j>)); 1 for the pair of an item with itself. None without features."""
    log_IJ = None
    for f_NW in features:
        part_IJ = (-selection.local(f_NW)[i] @ f_NW[j].mT).clamp_(max=0.0)
        log_IJ = part_IJ if log_IJ is None else log_IJ.add_(part_IJ)
    if log_IJ is None:
        return None
    selection.mask_self_pairs_(log_IJ, i, j, 0.0)
    return log_IJ.exp_()
