"""Areas of the triangles that three unit vectors have as corners (TRIANGLE, Cicchetti et al. 2025).

With corners t, v, a and u = t - v, w = v - a: area = sqrt(|u|^2 |w|^2 - <u, w>^2) / 2. Inner products of all pairs
give every area, so that no (B, B, D) difference is ever built.

Shapes: `M` = 3 modalities, `B` items, `D` width.
"""

from typing import Literal

import torch
from torch import Tensor

from unialign.embeddings import Batch
from unialign.functional._gram import wide
from unialign.functional._volume import safe_sqrt

__all__ = ["TriangleForm", "cross_areas"]

TriangleForm = Literal["area", "squared"]


def cross_areas(batch: Batch, *, anchor: int, form: TriangleForm = "area", eps: float) -> Tensor:
    """Area of the triangle of item i's anchor with the two other vectors of item j, (B, B).

    `area`: sqrt(max(S, 0) + eps) / 2 with S = |u|^2 |w|^2 - <u, w>^2 · `squared`: S / 2, twice the squared area, which
    is what the released code trains with.

    The diagonal, where S cancels as the modalities agree, comes from the differences themselves in float64.
    """
    z = batch.z_MBD.unbind(0)
    t_BD, (v_BD, a_BD) = z[anchor], (z[m] for m in range(3) if m != anchor)
    square_BB = _cross_squares(t_BD, v_BD, a_BD)
    own_B = _own_squares(wide(t_BD), wide(v_BD), wide(a_BD)).to(t_BD.dtype)
    own_BB = torch.eye(len(own_B), dtype=torch.bool, device=own_B.device)
    square_BB = torch.where(own_BB, own_B[:, None], square_BB)
    if form == "squared":
        return square_BB / 2
    return safe_sqrt(square_BB.clamp(min=0) + eps) / 2


def _cross_squares(t_BD: Tensor, v_BD: Tensor, a_BD: Tensor) -> Tensor:
    """|u|^2 |w|^2 - <u, w>^2 of unit t_i, v_j, a_j: |u|^2 = 2 - 2 t_i.v_j and <u, w> = t_i.w_j - v_j.w_j."""
    w_BD = v_BD - a_BD
    u_square_BB = 2 - 2 * (t_BD @ v_BD.mT)
    uw_BB = t_BD @ w_BD.mT - (v_BD * w_BD).sum(-1)
    return u_square_BB * (w_BD * w_BD).sum(-1) - uw_BB * uw_BB


def _own_squares(t_BD: Tensor, v_BD: Tensor, a_BD: Tensor) -> Tensor:
    u_BD, w_BD = t_BD - v_BD, v_BD - a_BD
    uw_B = (u_BD * w_BD).sum(-1)
    return (u_BD * u_BD).sum(-1) * (w_BD * w_BD).sum(-1) - uw_B * uw_B
