"""Compute orthonormal bases and volumes of tuples from their float64 Gram matrices (Gram-Schmidt).

The volume of a tuple is the product of the heights r_k, where r_k is the distance of vector k from the span of the
preceding vectors. With the orthonormal basis q_k = (C V)_k, Vol(a, v_1..v_K) = Vol(v_1..v_K) sqrt(1 - sum_k <q_k,
a>^2). Both formulas keep their relative precision for nearly equal vectors, whereas a determinant is then the small
difference of large numbers.

Shapes: `K` vectors of a tuple, `N` tuples, `D` dimension.
"""

from typing import Any

import torch
from torch import Tensor

from unialign._single_backward import first_order_only
from unialign.functional._float64_gram import to_float64
from unialign.ops import current_backend

# A vector is treated as linearly dependent if its squared height is at most this many rounding errors of the Gram
# matrix.
_ROUNDINGS = 1


def gram_schmidt(gram_NKK: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lower triangular C, (N, K, K), with C G C^T = I, and the heights r, (N, K); both are differentiable.

    A vector in the span of the preceding vectors has height 0 and a zero row in C, both with gradient 0.
    """
    rows: list[Tensor] = []
    heights: list[Tensor] = []
    unit_KK = torch.eye(gram_NKK.shape[-1], dtype=gram_NKK.dtype, device=gram_NKK.device)
    flat = _ROUNDINGS * torch.finfo(gram_NKK.dtype).eps
    for k in range(len(unit_KK)):
        row_NK, square_N = unit_KK[k].expand_as(gram_NKK[:, 0]), gram_NKK[:, k, k]
        if rows:
            before_NkK = torch.stack(rows, 1)
            along_Nk = (before_NkK @ gram_NKK[:, :, k, None])[..., 0]
            row_NK = row_NK - (along_Nk[:, None] @ before_NkK)[:, 0]
            square_N = square_N - (along_Nk * along_Nk).sum(-1)
        high_N = square_N > flat
        height_N = torch.sqrt(torch.where(high_N, square_N, 1.0))
        rows.append(torch.where(high_N[:, None], row_NK / height_N[:, None], 0.0))
        heights.append(torch.where(high_N, height_N, 0.0))
    return torch.stack(rows, 1), torch.stack(heights, 1)


def volumes(gram_NKK: Tensor) -> Tensor:
    """Twice differentiable, with gradient 0 where a volume is 0."""
    volume_N: Tensor = _Volume.apply(gram_NKK)  # type: ignore[no-untyped-call]
    return volume_N


class _Volume(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gram_NKK: Tensor) -> Tensor:
        c_NKK, height_NK = gram_schmidt(gram_NKK)
        volume_N = height_NK.prod(-1)
        ctx.save_for_backward(gram_NKK, c_NKK, volume_N)
        return volume_N

    @staticmethod
    def backward(ctx: Any, by_volume_N: Tensor) -> Tensor:
        gram_NKK, c_NKK, volume_N = ctx.saved_tensors
        if torch.is_grad_enabled():
            c_NKK, height_NK = gram_schmidt(gram_NKK)
            volume_N = height_NK.prod(-1)
        # d Vol = Vol tr(G^-1 dG) / 2 with G^-1 = C^T C.
        by_gram_NKK: Tensor = (by_volume_N * volume_N / 2)[:, None, None] * (c_NKK.mT @ c_NKK)
        return by_gram_NKK


def orthonormal_rows(rows: list[Tensor], present_KN: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Volumes (N,) in float64, and K tensors of orthonormal rows (N, D) that span the vectors of each tuple.

    Gradients are exact only for functions that depend on the span but not on the choice of its basis. An absent vector
    is treated as orthogonal to all others, and its basis row is 0.
    """
    if len(rows) == 1:
        return torch.ones_like(rows[0][:, 0], dtype=torch.float64), rows
    if current_backend() == "reference":
        volume_N, basis_NKD = _factor(_stack(rows), present_KN)[:2]
        parts = [basis_ND.to(rows[0].dtype) for basis_ND in basis_NKD.unbind(1)]
    else:
        volume_N, *parts = _OrthonormalRows.apply(present_KN, *rows)  # type: ignore[no-untyped-call]
    return volume_N, parts


class _OrthonormalRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, present_KN: Tensor, *rows: Tensor) -> tuple[Tensor, ...]:
        volume_N, basis_NKD, c_NKK = _factor(_stack(rows), present_KN)
        ctx.save_for_backward(volume_N, c_NKK, *rows)
        return volume_N, *(basis_ND.to(rows[0].dtype) for basis_ND in basis_NKD.unbind(1))

    @staticmethod
    def backward(ctx: Any, by_volume_N: Tensor, *by_basis: Tensor) -> tuple[Tensor | None, ...]:
        volume_N, c_NKK, *rows = ctx.saved_tensors
        with torch.no_grad():
            basis_NKD, by_basis_NKD = c_NKK @ _stack(rows), _stack(by_basis)
            # A = Q R: d(Q Q^T) = (1 - Q Q^T) dA R^-1 Q^T + transposed, d Vol = Vol tr(R^-1 Q^T dA).
            by_basis_NKD -= (by_basis_NKD @ basis_NKD.mT) @ basis_NKD
            by_basis_NKD += (by_volume_N * volume_N)[:, None, None] * basis_NKD
            by_rows_NKD = (c_NKK.mT @ by_basis_NKD).to(rows[0].dtype)
        return None, *(first_order_only(by_ND, *rows, by_volume_N, *by_basis) for by_ND in by_rows_NKD.unbind(1))


def _factor(v_NKD: Tensor, present_KN: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A second pass restores the precision lost in the first."""
    absent_NKK = torch.diag_embed((~present_KN).to(v_NKD.dtype).mT)
    c_NKK, height_NK = gram_schmidt(v_NKD @ v_NKD.mT + absent_NKK)
    basis_NKD = c_NKK @ v_NKD
    # The basis rows of absent and of linearly dependent vectors are 0.
    flat_NK = (height_NK == 0) | ~present_KN.mT
    again_NKK, again_NK = gram_schmidt(basis_NKD @ basis_NKD.mT + torch.diag_embed(flat_NK.to(v_NKD.dtype)))
    return (height_NK * again_NK).prod(-1), again_NKK @ basis_NKD, again_NKK @ c_NKK


def _stack(rows: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    return torch.stack([to_float64(row_ND) for row_ND in rows], 1)
