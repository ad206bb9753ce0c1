"""Compute the logits of GRAM (volumes) and TRIANGLE (areas) for the anchor of item i and the other vectors of item j.

Shapes: `K` = M - 1 other modalities, `N` selected rows, `D` dimension, `I` rows and `J` columns of a tile.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from unialign.ops._logits import Logits

TriangleForm = Literal["area", "squared"]


class VolumeLogits(Logits):
    """-scale sqrt(volume_j^2 max(1 - sum_k <anchor i, basis vector k of item j>^2, 0) + eps)."""

    def __init__(self, volume_N: Tensor, scale: Tensor, anchor_ND: Tensor, *basis: Tensor, eps: float) -> None:
        self.tensors = volume_N, scale, anchor_ND, *basis
        self.eps, self.factor = eps, float(scale.detach())
        # Round the floor in the same way as the volumes, which are compared with the floor.
        self.floor = float(torch.zeros((), dtype=volume_N.dtype).add_(eps).sqrt_())
        self.lowest, self.highest = -1.01 * self.factor * (1 + eps) ** 0.5, 0.0

    def tile(self, i: slice, j: slice, out_IJ: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        volume_N, _, anchor_ND, *basis = self.tensors
        cosines = [anchor_ND[i] @ basis_ND[j].mT for basis_ND in basis]
        # The squared sine of the angle between the anchor and the span.
        sine_IJ = torch.ones_like(out_IJ)
        for cosine_IJ in cosines:
            sine_IJ.addcmul_(cosine_IJ, cosine_IJ, value=-1)
        sine_IJ.clamp_(min=0)
        value_IJ = (sine_IJ * volume_N[j] ** 2).add_(self.eps).sqrt_()
        torch.mul(value_IJ, -self.factor, out=out_IJ)
        return cosines, sine_IJ, value_IJ

    def accumulate_grad(self, gradients: Sequence[Tensor], i: slice, j: slice, weight_IJ: Tensor, saved: Any) -> None:
        cosines, sine_IJ, value_IJ = saved
        volume_N, _, anchor_ND, *basis = self.tensors
        by_volume_N, by_scale, by_anchor_ND, *by_basis = gradients
        by_scale -= (weight_IJ * value_IJ).sum()
        # The volume is constant at the floor, so its derivative is 0 there. If `eps` is 0, the derivative at volume 0
        # is defined as 0.
        above_IJ = value_IJ > self.floor
        slope_IJ = weight_IJ.div_(value_IJ).mul_(-self.factor).masked_fill_(~above_IJ, 0.0)
        by_volume_N[j] += (slope_IJ * sine_IJ).sum(0) * volume_N[j]
        slope_IJ *= -(volume_N[j] ** 2)
        for k, cosine_IJ in enumerate(cosines):
            by_cosine_IJ = cosine_IJ.mul_(slope_IJ)
            by_anchor_ND[i].addmm_(by_cosine_IJ, basis[k][j])
            by_basis[k][j].addmm_(by_cosine_IJ.mT, anchor_ND[i])

    def dense(self) -> Tensor:
        volume_N, scale, anchor_ND, *basis = self.tensors
        cosine_KNN = torch.stack([anchor_ND @ basis_ND.mT for basis_ND in basis])
        sine_NN = (1 - (cosine_KNN * cosine_KNN).sum(0)).clamp(min=0)
        return -scale * safe_sqrt(sine_NN * volume_N**2 + self.eps)


class AreaLogits(Logits):
    """-scale A, where A is the area of the triangle of anchor t_i, v_j and a_j.

    Let S = |t - c|^2 |w|^2 - <t - c, w>^2, where c = (v + a) / 2 and w = v - a. Then A is sqrt(max(S, 0) + eps) / 2 for
    `area` and S / 2 for `squared`. `cc_N`, `cw_N`, `ww_N` are 1 + <c, c>, <c, w> and <w, w>.
    """

    def __init__(
        self,
        scale: Tensor,
        t_ND: Tensor,
        c_ND: Tensor,
        w_ND: Tensor,
        cc_N: Tensor,
        cw_N: Tensor,
        ww_N: Tensor,
        *,
        form: TriangleForm,
        eps: float,
    ) -> None:
        self.tensors = scale, t_ND, c_ND, w_ND, cc_N, cw_N, ww_N
        self.form, self.eps, self.factor = form, eps, float(scale.detach())
        self.floor = float(torch.zeros((), dtype=t_ND.dtype).add_(eps).sqrt_()) / 2
        # The largest triangle in a unit sphere is equilateral, with area 1.3 and S / 2 = 3.4.
        largest = 1.3 * (1 + eps) ** 0.5 if form == "area" else 3.4
        self.lowest, self.highest = -1.01 * self.factor * largest, 0.01 * self.factor

    def tile(self, i: slice, j: slice, out_IJ: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        _, t_ND, c_ND, w_ND, cc_N, cw_N, ww_N = self.tensors
        p_IJ = (t_ND[i] @ c_ND[j].mT).mul_(-2).add_(cc_N[j])
        q_IJ = (t_ND[i] @ w_ND[j].mT).sub_(cw_N[j])
        value_IJ = (p_IJ * ww_N[j]).addcmul_(q_IJ, q_IJ, value=-1)
        if self.form == "area":
            value_IJ.clamp_(min=0).add_(self.eps).sqrt_()
        value_IJ.mul_(0.5)
        torch.mul(value_IJ, -self.factor, out=out_IJ)
        return p_IJ, q_IJ, value_IJ

    def accumulate_grad(self, gradients: Sequence[Tensor], i: slice, j: slice, weight_IJ: Tensor, saved: Any) -> None:
        p_IJ, q_IJ, value_IJ = saved
        _, t_ND, c_ND, w_ND, _, _, ww_N = self.tensors
        by_scale, by_t_ND, by_c_ND, by_w_ND, by_cc_N, by_cw_N, by_ww_N = gradients
        by_scale -= (weight_IJ * value_IJ).sum()
        if self.form == "area":
            # A = sqrt(S + eps) / 2, so dA/dS = 1 / (8 A).
            above_IJ = value_IJ > self.floor
            slope_IJ = weight_IJ.div_(value_IJ).mul_(-self.factor / 8).masked_fill_(~above_IJ, 0.0)
        else:
            slope_IJ = weight_IJ.mul_(-self.factor / 2)
        by_ww_N[j] += (slope_IJ * p_IJ).sum(0)
        by_q_IJ = q_IJ.mul_(slope_IJ).mul_(-2)
        by_cw_N[j] -= by_q_IJ.sum(0)
        by_p_IJ = slope_IJ.mul_(ww_N[j])
        by_cc_N[j] += by_p_IJ.sum(0)
        by_p_IJ.mul_(-2)
        by_t_ND[i].addmm_(by_p_IJ, c_ND[j])
        by_t_ND[i].addmm_(by_q_IJ, w_ND[j])
        by_c_ND[j].addmm_(by_p_IJ.mT, t_ND[i])
        by_w_ND[j].addmm_(by_q_IJ.mT, t_ND[i])

    def dense(self) -> Tensor:
        scale, t_ND, c_ND, w_ND, cc_N, cw_N, ww_N = self.tensors
        square_NN = (cc_N - 2 * t_ND @ c_ND.mT) * ww_N - (t_ND @ w_ND.mT - cw_N) ** 2
        if self.form == "squared":
            return -scale * square_NN / 2
        return -scale * safe_sqrt(square_NN.clamp(min=0) + self.eps) / 2


def safe_sqrt(x: Tensor) -> Tensor:
    """The gradient is 0 instead of infinity at exactly 0."""
    positive = x > 0
    return torch.where(positive, torch.sqrt(torch.where(positive, x, 1.0)), 0.0)
