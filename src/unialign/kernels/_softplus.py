"""The sum of softplus over all pairs of two sets of rows: the pairwise sigmoid loss, in one pass over tiles.

    sum_ij softplus(l_ij) with l_ij = scale <x_i, y_j> + bias, over pairs of different ids and the pairs (i, i)

Its slope by l_ij is sigmoid(l_ij), which needs no other pair: value and gradient come from the same tile.

Shapes: `N` members, `D` width, `I` rows and `J` columns of a tile.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from unialign.kernels._backend import chosen
from unialign.kernels._members import Members
from unialign.kernels._once import first_order_only
from unialign.kernels._tiles import SIDE, rectangle

__all__ = ["softplus_total"]


def softplus_total(
    x_ND: Tensor, y_ND: Tensor, scale: Tensor, bias: Tensor, *, members: Members, side: int = SIDE
) -> Tensor:
    """The sum above, a scalar. On many processes each makes the whole of it.

    Args:
        scale, bias: scalars, differentiable.
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
        ctx: Any, x_ND: Tensor, y_ND: Tensor, scale: Tensor, bias: Tensor, members: Members, side: int
    ) -> Tensor:
        gradients = None
        if any(ctx.needs_input_grad):
            gradients = [torch.zeros_like(x_ND), torch.zeros_like(y_ND)]
        total, slope = 0.0, 0.0
        factor, shift = float(scale), float(bias)
        for i, j in rectangle(members.size, members.size, side=side):
            logit_IJ = (x_ND[i] * factor @ y_ND[j].mT).add_(shift)
            value_IJ = functional.softplus(logit_IJ)
            hidden_IJ = members.same_id(i, j)
            if hidden_IJ is not None:
                if i == j:
                    hidden_IJ.fill_diagonal_(False)
                value_IJ.masked_fill_(hidden_IJ, 0.0)
            total += float(value_IJ.sum(1).double().sum())
            if gradients is not None:
                weight_IJ = logit_IJ.sigmoid_()
                if hidden_IJ is not None:
                    weight_IJ.masked_fill_(hidden_IJ, 0.0)
                slope += float(weight_IJ.sum(1).double().sum())
                gradients[0][i].addmm_(weight_IJ, y_ND[j])
                gradients[1][j].addmm_(weight_IJ.mT, x_ND[i])
        if gradients is not None:
            by_scale = (gradients[0] * x_ND).sum(dtype=torch.float64).to(scale.dtype).reshape(scale.shape)
            by_x_ND, by_y_ND = (gradient.mul_(factor) for gradient in gradients)
            ctx.save_for_backward(x_ND, y_ND, scale, bias, by_x_ND, by_y_ND, by_scale, bias.new_tensor(slope))
        return x_ND.new_tensor(total)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        with torch.no_grad():
            gradients = [gradient * g for gradient in ctx.saved_tensors[4:]]
        return (*(first_order_only(gradient, g, *ctx.saved_tensors) for gradient in gradients), None, None)
