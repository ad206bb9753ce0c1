"""Compute the logits of GRAM (volumes) and TRIANGLE (areas) of the anchor of item i and the other vectors of item j.

Shapes: `K` = M - 1 others, `N` selected rows, `D` dimension, `I` rows and `J` columns of a tile.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from unialign.ops._logits import Logits

TriangleForm = Literal["area", "squared"]


class VolumeLogits(Logits):
    """Logits -scale sqrt(max(det_j - sum_kn adj_jkn g_ijk g_ijn, 0) + eps), g_ijk = <anchor i, vector k of item j>.

    Args:
        det_N, adj_KKN: determinant and adjugate of each item's Gram matrix without the anchor.
        scale: positive scalar, such as 1 / tau.
        anchor_ND, others_ND: unit rows; one tensor for each of the K others, zero where absent.
        eps: at least 0.
    """

    def __init__(
        self, det_N: Tensor, adj_KKN: Tensor, scale: Tensor, anchor_ND: Tensor, *others_ND: Tensor, eps: float
    ) -> None:
        self.tensors = det_N, adj_KKN, scale, anchor_ND, *others_ND
        self.eps, self.factor = eps, float(scale.detach())
        # Rounded in the same way as the volumes that are compared with it.
        self.floor = float(torch.zeros((), dtype=det_N.dtype).add_(eps).sqrt_())
        self.lowest, self.highest = -1.01 * self.factor * (1 + eps) ** 0.5, 0.0

    def tile(self, i: slice, j: slice, out_IJ: Tensor) -> tuple[list[Tensor], Tensor]:
        det_N, adj_KKN, _, anchor_ND, *others = self.tensors
        cosines = [anchor_ND[i] @ other_ND[j].mT for other_ND in others]
        value_IJ = det_N[j].expand(len(cosines[0]), -1).clone()
        for half_IJ, cosine_IJ in zip(_halves(adj_KKN[..., j], cosines), cosines, strict=True):
            value_IJ.addcmul_(half_IJ, cosine_IJ, value=-1)
        value_IJ.clamp_(min=0).add_(self.eps).sqrt_()
        torch.mul(value_IJ, -self.factor, out=out_IJ)
        return cosines, value_IJ

    def accumulate_grad(self, gradients: Sequence[Tensor], i: slice, j: slice, weight_IJ: Tensor, saved: Any) -> None:
        cosines, value_IJ = saved
        _, adj_KKN, _, anchor_ND, *others = self.tensors
        by_det_N, by_adj_KKN, by_scale, by_anchor_ND, *by_others = gradients
        by_scale -= (weight_IJ * value_IJ).sum()
        # The volume is constant at its floor; without a floor, the slope at 0 is defined as 0.
        above_IJ = value_IJ > self.floor
        slope_IJ = weight_IJ.div_(value_IJ).mul_(-self.factor / 2).masked_fill_(~above_IJ, 0.0)
        by_det_N[j] += slope_IJ.sum(0)
        for k, half_IJ in enumerate(_halves(adj_KKN[..., j], cosines)):
            weighted_IJ = slope_IJ * cosines[k]
            for n in range(k + 1):
                by_entry_J = (weighted_IJ * cosines[n]).sum(0)
                by_adj_KKN[k, n, j] -= by_entry_J
                if n != k:
                    by_adj_KKN[n, k, j] -= by_entry_J
            by_cosine_IJ = half_IJ.mul_(slope_IJ).mul_(-2)
            by_anchor_ND[i].addmm_(by_cosine_IJ, others[k][j])
            by_others[k][j].addmm_(by_cosine_IJ.mT, anchor_ND[i])

    def dense(self) -> Tensor:
        det_N, adj_KKN, scale, anchor_ND, *others = self.tensors
        cosine_KNN = torch.stack([anchor_ND @ other_ND.mT for other_ND in others])
        square_NN = det_N - torch.einsum("kij,knj,nij->ij", cosine_KNN, adj_KKN, cosine_KNN)
        return -scale * safe_sqrt(square_NN.clamp(min=0) + self.eps)


class AreaLogits(Logits):
    """Logits -scale A, with A the area of the triangle of anchor t_i, v_j and a_j; w = v - a.

    S = |t - v|^2 |w|^2 - <t - v, w>^2 with |t - v|^2 = 2 - 2 <t, v>; `area`: A = sqrt(max(S, 0) + eps) / 2 · `squared`:
    A = S / 2.

    Args:
        scale: positive scalar.
        t_ND, v_ND: unit rows.
        w_ND: v - a.
        vw_N, ww_N: <v, w> and <w, w>.
    """

    def __init__(
        self,
        scale: Tensor,
        t_ND: Tensor,
        v_ND: Tensor,
        w_ND: Tensor,
        vw_N: Tensor,
        ww_N: Tensor,
        *,
        form: TriangleForm,
        eps: float,
    ) -> None:
        self.tensors = scale, t_ND, v_ND, w_ND, vw_N, ww_N
        self.form, self.eps, self.factor = form, eps, float(scale.detach())
        self.floor = float(torch.zeros((), dtype=t_ND.dtype).add_(eps).sqrt_()) / 2
        # The largest triangle in a unit sphere is equilateral: area 1.3, squared S / 2 = 3.4.
        largest = 1.3 * (1 + eps) ** 0.5 if form == "area" else 3.4
        self.lowest, self.highest = -1.01 * self.factor * largest, 0.01 * self.factor

    def tile(self, i: slice, j: slice, out_IJ: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        _, t_ND, v_ND, w_ND, vw_N, ww_N = self.tensors
        p_IJ = (t_ND[i] @ v_ND[j].mT).mul_(-2).add_(2)
        q_IJ = (t_ND[i] @ w_ND[j].mT).sub_(vw_N[j])
        value_IJ = (p_IJ * ww_N[j]).addcmul_(q_IJ, q_IJ, value=-1)
        if self.form == "area":
            value_IJ.clamp_(min=0).add_(self.eps).sqrt_()
        value_IJ.mul_(0.5)
        torch.mul(value_IJ, -self.factor, out=out_IJ)
        return p_IJ, q_IJ, value_IJ

    def accumulate_grad(self, gradients: Sequence[Tensor], i: slice, j: slice, weight_IJ: Tensor, saved: Any) -> None:
        p_IJ, q_IJ, value_IJ = saved
        _, t_ND, v_ND, w_ND, _, ww_N = self.tensors
        by_scale, by_t_ND, by_v_ND, by_w_ND, by_vw_N, by_ww_N = gradients
        by_scale -= (weight_IJ * value_IJ).sum()
        if self.form == "area":
            # A = sqrt(S') / 2: dA/dS = 1 / (8 A).
            above_IJ = value_IJ > self.floor
            slope_IJ = weight_IJ.div_(value_IJ).mul_(-self.factor / 8).masked_fill_(~above_IJ, 0.0)
        else:
            slope_IJ = weight_IJ.mul_(-self.factor / 2)
        by_ww_N[j] += (slope_IJ * p_IJ).sum(0)
        by_q_IJ = q_IJ.mul_(slope_IJ).mul_(-2)
        by_vw_N[j] -= by_q_IJ.sum(0)
        by_p_IJ = slope_IJ.mul_(ww_N[j]).mul_(-2)
        by_t_ND[i].addmm_(by_p_IJ, v_ND[j])
        by_t_ND[i].addmm_(by_q_IJ, w_ND[j])
        by_v_ND[j].addmm_(by_p_IJ.mT, t_ND[i])
        by_w_ND[j].addmm_(by_q_IJ.mT, t_ND[i])

    def dense(self) -> Tensor:
        scale, t_ND, v_ND, w_ND, vw_N, ww_N = self.tensors
        square_NN = (2 - 2 * t_ND @ v_ND.mT) * ww_N - (t_ND @ w_ND.mT - vw_N) ** 2
        if self.form == "squared":
            return -scale * square_NN / 2
        return -scale * safe_sqrt(square_NN.clamp(min=0) + self.eps) / 2


def _halves(adj_KKJ: Tensor, cosines: Sequence[Tensor]) -> Iterator[Tensor]:
    """Yield sum_n adj_jkn g_ijn, (I, J), for each k."""
    for row_KJ in adj_KKJ:
        product_IJ = row_KJ[0] * cosines[0]
        for weight_J, cosine_IJ in zip(row_KJ[1:], cosines[1:], strict=True):
            product_IJ.addcmul_(weight_J, cosine_IJ)
        yield product_IJ


def safe_sqrt(x: Tensor) -> Tensor:
    """Return the square root, with gradient 0 instead of infinity at exactly 0."""
    positive = x > 0
    return torch.where(positive, torch.sqrt(torch.where(positive, x, 1.0)), 0.0)
