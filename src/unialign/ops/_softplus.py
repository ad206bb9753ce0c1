"""The sum of softplus over all pairs of two sets of rows: the pairwise sigmoid loss, in one pass over tiles.

    sum_ij softplus(l_ij) with l_ij = scale <x_i, y_j> + bias, over pairs of different ids and the pairs (i, i)

Its slope by l_ij is sigmoid(l_ij), which needs no other pair: value and gradient come from the same tile. On many
processes each has a tile for its own rows x and another for its own rows y; three numbers are exchanged.

Shapes: `N` members, `R` of them this process's own, `D` width, `I` rows and `J` columns of a tile.
"""

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from unialign.ops._backend import chosen
from unialign.ops._once import first_order_only
from unialign.ops._row_selection import RowSelection
from unialign.ops._tiles import SIDE, rectangle

__all__ = ["softplus_total"]


def softplus_total(
    x_ND: Tensor, y_ND: Tensor, scale: Tensor, bias: Tensor, *, members: RowSelection, side: int = SIDE
) -> Tensor:
    """The sum above, a scalar.

    Args:
        scale, bias: scalars, differentiable. On many processes their gradients are those of all pairs, on each of them.
        side: rows of a tile; the result does not depend on it.
    """
    if chosen() == "reference":
        logit_NN = x_ND @ y_ND.mT * scale + bias
        own_NN = torch.eye(members.size, dtype=torch.bool, device=x_ND.device)
        hidden_NN = members.same_id_table(x_ND.device) & ~own_NN
        return functional.softplus(logit_NN).masked_fill(hidden_NN, 0.0).sum()
    total: Tensor = _SoftplusTotal.apply(x_ND, y_ND, scale, bias, members, side)  # type: ignore[no-untyped-call]
    return total


class _SoftplusTotal(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_ND: Tensor, y_ND: Tensor, scale: Tensor, bias: Tensor, members: RowSelection, side: int
    ) -> Tensor:
        make = _whole if members.shard is None else _divided
        sums = make(
            x_ND, y_ND, float(scale), float(bias), members=members, side=side, with_gradient=any(ctx.needs_input_grad)
        )
        if sums.by_x_ND is not None and sums.by_y_ND is not None:
            by_numbers = (scale.new_tensor(sums.by_scale).reshape(scale.shape), bias.new_tensor(sums.by_bias))
            ctx.save_for_backward(x_ND, y_ND, scale, bias, sums.by_x_ND, sums.by_y_ND, *by_numbers)
        return x_ND.new_tensor(sums.total)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # read once: under activation checkpointing a second look is refused
        with torch.no_grad():
            gradients = [gradient * g for gradient in saved[4:]]
        return (*(first_order_only(gradient, g, *saved) for gradient in gradients), None, None)


class _Sums(NamedTuple):
    """The total and its slopes; on many processes the gradients are those of own rows, and 0 elsewhere."""

    total: float
    by_scale: float
    by_bias: float
    by_x_ND: Tensor | None
    by_y_ND: Tensor | None


def _whole(
    x_ND: Tensor, y_ND: Tensor, scale: float, bias: float, *, members: RowSelection, side: int, with_gradient: bool
) -> _Sums:
    by_x_ND, by_y_ND = (torch.zeros_like(z_ND) if with_gradient else None for z_ND in (x_ND, y_ND))
    total, by_bias = 0.0, 0.0
    for i, j in rectangle(members.size, members.size, side=side):
        logit_IJ = (x_ND[i] * scale @ y_ND[j].mT).add_(bias)
        hidden_IJ = members.same_id(i, j)
        if hidden_IJ is not None and i == j:
            hidden_IJ.diagonal().fill_(False)
        total += _softplus_sum(logit_IJ, hidden_IJ)
        if by_x_ND is not None and by_y_ND is not None:
            weight_IJ = _slopes(logit_IJ, hidden_IJ)
            by_bias += float(weight_IJ.sum(1).double().sum())
            by_x_ND[i].addmm_(weight_IJ, y_ND[j])
            by_y_ND[j].addmm_(weight_IJ.mT, x_ND[i])
    by_scale = 0.0
    if by_x_ND is not None and by_y_ND is not None:
        by_scale = float((by_x_ND * x_ND).sum(dtype=torch.float64))
        by_x_ND.mul_(scale)
        by_y_ND.mul_(scale)
    return _Sums(total, by_scale, by_bias, by_x_ND, by_y_ND)


def _divided(
    x_ND: Tensor, y_ND: Tensor, scale: float, bias: float, *, members: RowSelection, side: int, with_gradient: bool
) -> _Sums:
    """Own rows against all columns for the sums and the gradient by x, own columns against all rows for that by y."""
    assert members.shard is not None
    assert members.places_R is not None
    own_rows = partial(_own_rows, scale=scale, bias=bias, members=members, side=side, with_gradient=with_gradient)
    total, by_bias, by_x_RD = own_rows(x_ND, y_ND)
    by_scale, gradients = 0.0, list[Tensor]()
    if with_gradient:
        by_scale = float((by_x_RD * x_ND[members.places_R]).sum(dtype=torch.float64))
        _, _, by_y_RD = own_rows(y_ND, x_ND)
        gradients = [members.broadcast(by_RD.mul_(scale), x_ND) for by_RD in (by_x_RD, by_y_RD)]
    own_3 = torch.tensor([total, by_scale, by_bias], dtype=torch.float64, device=x_ND.device)
    sums = members.shard.gather_numbers(own_3).sum(0).tolist()
    return _Sums(*sums, *(gradients or (None, None)))


def _own_rows(
    x_ND: Tensor, y_ND: Tensor, *, scale: float, bias: float, members: RowSelection, side: int, with_gradient: bool
) -> tuple[float, float, Tensor]:
    """The sum over own rows x_i and all y_k, that of its slopes, and (R, D) sum_k sigmoid(l_ik) y_k."""
    places_R, codes_N = members.places_R, members.codes_N
    assert places_R is not None
    x_RD = x_ND[places_R]
    by_RD = torch.zeros_like(x_RD)
    total, slopes = 0.0, 0.0
    for i, j in rectangle(len(x_RD), members.size, side=side):
        logit_IJ = (x_RD[i] * scale @ y_ND[j].mT).add_(bias)
        hidden_IJ = None
        if codes_N is not None:
            hidden_IJ = codes_N[places_R[i], None] == codes_N[j]
            hidden_IJ &= places_R[i, None] != torch.arange(j.start, j.stop, device=x_ND.device)
        total += _softplus_sum(logit_IJ, hidden_IJ)
        if with_gradient:
            weight_IJ = _slopes(logit_IJ, hidden_IJ)
            slopes += float(weight_IJ.sum(1).double().sum())
            by_RD[i].addmm_(weight_IJ, y_ND[j])
    return total, slopes, by_RD


def _softplus_sum(logit_IJ: Tensor, hidden_IJ: Tensor | None) -> float:
    value_IJ = functional.softplus(logit_IJ)
    if hidden_IJ is not None:
        value_IJ.masked_fill_(hidden_IJ, 0.0)
    return float(value_IJ.sum(1).double().sum())


def _slopes(logit_IJ: Tensor, hidden_IJ: Tensor | None) -> Tensor:
    """sigmoid(l), in the place of the logits."""
    weight_IJ = logit_IJ.sigmoid_()
    return weight_IJ if hidden_IJ is None else weight_IJ.masked_fill_(hidden_IJ, 0.0)
