"""Sum of softplus over all pairs of two sets of rows: the pairwise sigmoid loss, in one pass over tiles.

    sum_ij softplus(l_ij) with l_ij = scale <x_i, y_j> + bias, over pairs of different ids and the pairs (i, i)

The derivative with respect to l_ij is sigmoid(l_ij), which depends on no other pair, so one pass gives value and
gradient. On several processes, each computes the tiles of its local x against all y and of its local y against all x,
and three scalars are gathered.

Shapes: `N` selected rows, `R` local ones, `D` dimension, `I` rows and `J` columns of a tile.
"""

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from unialign._single_backward import first_order_only
from unialign.ops._backend import current_backend
from unialign.ops._row_selection import RowSelection
from unialign.ops._tiles import SIDE, rectangle

__all__ = ["softplus_total"]


def softplus_total(
    x_ND: Tensor, y_ND: Tensor, scale: Tensor, bias: Tensor, *, selection: RowSelection, side: int = SIDE
) -> Tensor:
    """Return the sum above, a scalar.

    Args:
        scale, bias: scalars, differentiable. On several processes, each gets their gradients over all pairs.
        side: rows per tile; does not affect the result.
    """
    if current_backend() == "reference":
        logit_NN = x_ND @ y_ND.mT * scale + bias
        diagonal_NN = torch.eye(selection.size, dtype=torch.bool, device=x_ND.device)
        masked_NN = selection.same_id_table(x_ND.device) & ~diagonal_NN
        return functional.softplus(logit_NN).masked_fill(masked_NN, 0.0).sum()
    total: Tensor = _SoftplusTotal.apply(x_ND, y_ND, scale, bias, selection, side)  # type: ignore[no-untyped-call]
    return total


class _SoftplusTotal(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_ND: Tensor, y_ND: Tensor, scale: Tensor, bias: Tensor, selection: RowSelection, side: int
    ) -> Tensor:
        sum_up = _all_pairs if selection.shard is None else _local_pairs
        sums = sum_up(
            x_ND,
            y_ND,
            float(scale),
            float(bias),
            selection=selection,
            side=side,
            with_gradient=any(ctx.needs_input_grad),
        )
        if sums.by_x_ND is not None and sums.by_y_ND is not None:
            by_scalars = (scale.new_tensor(sums.by_scale).reshape(scale.shape), bias.new_tensor(sums.by_bias))
            ctx.save_for_backward(x_ND, y_ND, scale, bias, sums.by_x_ND, sums.by_y_ND, *by_scalars)
        return x_ND.new_tensor(sums.total)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # read once: activation checkpointing allows only one access
        with torch.no_grad():
            gradients = [gradient * g for gradient in saved[4:]]
        return (*(first_order_only(gradient, g, *saved) for gradient in gradients), None, None)


class _Sums(NamedTuple):
    """Total and its gradients; on several processes, gradients of x and y are 0 outside the local rows."""

    total: float
    by_scale: float
    by_bias: float
    by_x_ND: Tensor | None
    by_y_ND: Tensor | None


def _all_pairs(
    x_ND: Tensor, y_ND: Tensor, scale: float, bias: float, *, selection: RowSelection, side: int, with_gradient: bool
) -> _Sums:
    by_x_ND, by_y_ND = (torch.zeros_like(z_ND) if with_gradient else None for z_ND in (x_ND, y_ND))
    total, by_bias = 0.0, 0.0
    for i, j in rectangle(selection.size, selection.size, side=side):
        logit_IJ = (x_ND[i] * scale @ y_ND[j].mT).add_(bias)
        masked_IJ = selection.same_id(i, j)
        if masked_IJ is not None and i == j:
            masked_IJ.diagonal().fill_(False)
        total += _softplus_sum(logit_IJ, masked_IJ)
        if by_x_ND is not None and by_y_ND is not None:
            weight_IJ = _sigmoid_(logit_IJ, masked_IJ)
            by_bias += float(weight_IJ.sum(1).double().sum())
            by_x_ND[i].addmm_(weight_IJ, y_ND[j])
            by_y_ND[j].addmm_(weight_IJ.mT, x_ND[i])
    by_scale = 0.0
    if by_x_ND is not None and by_y_ND is not None:
        by_scale = float((by_x_ND * x_ND).sum(dtype=torch.float64))
        by_x_ND.mul_(scale)
        by_y_ND.mul_(scale)
    return _Sums(total, by_scale, by_bias, by_x_ND, by_y_ND)


def _local_pairs(
    x_ND: Tensor, y_ND: Tensor, scale: float, bias: float, *, selection: RowSelection, side: int, with_gradient: bool
) -> _Sums:
    """Sum local x against all y for the gradient of x, and local y against all x for the gradient of y."""
    assert selection.shard is not None
    assert selection.local_R is not None
    local_rows = partial(
        _local_rows, scale=scale, bias=bias, selection=selection, side=side, with_gradient=with_gradient
    )
    total, by_bias, by_x_RD = local_rows(x_ND, y_ND)
    by_scale, gradients = 0.0, list[Tensor]()
    if with_gradient:
        by_scale = float((by_x_RD * x_ND[selection.local_R]).sum(dtype=torch.float64))
        _, _, by_y_RD = local_rows(y_ND, x_ND)
        gradients = [selection.scatter(by_RD.mul_(scale), x_ND) for by_RD in (by_x_RD, by_y_RD)]
    local_3 = torch.tensor([total, by_scale, by_bias], dtype=torch.float64, device=x_ND.device)
    sums = selection.shard.gather_numbers(local_3).sum(0).tolist()
    return _Sums(*sums, *(gradients or (None, None)))


def _local_rows(
    x_ND: Tensor, y_ND: Tensor, *, scale: float, bias: float, selection: RowSelection, side: int, with_gradient: bool
) -> tuple[float, float, Tensor]:
    """Return the sum over local x_i and all y_k, the sum of its derivatives, and (R, D) sum_k sigmoid(l_ik) y_k."""
    local_R, codes_N = selection.local_R, selection.codes_N
    assert local_R is not None
    x_RD = x_ND[local_R]
    by_RD = torch.zeros_like(x_RD)
    total, slopes = 0.0, 0.0
    for i, j in rectangle(len(x_RD), selection.size, side=side):
        logit_IJ = (x_RD[i] * scale @ y_ND[j].mT).add_(bias)
        masked_IJ = None
        if codes_N is not None:
            masked_IJ = codes_N[local_R[i], None] == codes_N[j]
            masked_IJ &= local_R[i, None] != torch.arange(j.start, j.stop, device=x_ND.device)
        total += _softplus_sum(logit_IJ, masked_IJ)
        if with_gradient:
            weight_IJ = _sigmoid_(logit_IJ, masked_IJ)
            slopes += float(weight_IJ.sum(1).double().sum())
            by_RD[i].addmm_(weight_IJ, y_ND[j])
    return total, slopes, by_RD


def _softplus_sum(logit_IJ: Tensor, masked_IJ: Tensor | None) -> float:
    value_IJ = functional.softplus(logit_IJ)
    if masked_IJ is not None:
        value_IJ.masked_fill_(masked_IJ, 0.0)
    return float(value_IJ.sum(1).double().sum())


def _sigmoid_(logit_IJ: Tensor, masked_IJ: Tensor | None) -> Tensor:
    """Replace logits by sigmoid(l), in place."""
    weight_IJ = logit_IJ.sigmoid_()
    return weight_IJ if masked_IJ is None else weight_IJ.masked_fill_(masked_IJ, 0.0)
