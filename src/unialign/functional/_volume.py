"""Volumes of the parallelotopes that tuples of unit vectors span (GRAM, Cicchetti et al. 2025; paper Eq. 12).

The squared volume is a determinant, a polynomial of the cosines, and is computed as one: no inverse, no factorisation,
so that value and gradient are exact where modalities coincide (the published code gives NaN gradients there).
Determinants of tuples are taken in float64: in float32 that of nearly equal vectors is rounding noise of either sign.

Shapes: `M` modalities, `K` = M - 1 others, `B` items, `D` width.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unialign._checks import check_nonnegative
from unialign.embeddings import Batch, make_batch
from unialign.functional._gram import wide_gram

__all__ = [
    "cross_volumes",
    "determinant_and_adjugate",
    "gram_volume",
    "masked_gram",
    "safe_sqrt",
    "unit_volumes",
    "volume_floor",
]


def gram_volume(
    embeddings: Mapping[str, Tensor], *, eps: float = 0.0, present: Mapping[str, Tensor] | None = None
) -> Tensor:
    """sqrt(max(det G_i, 0) + eps) of each item's Gram matrix, (B,), in [0, 1].

    1 for orthonormal vectors, |sin| of the angle for M = 2, 0 when the vectors are linearly dependent: for M >= 3 that
    does not mean that they agree (three coplanar or two opposite ones suffice). An absent modality counts as one extra
    orthonormal axis, so the result is the volume of the present ones (1 for a single one).

    Args:
        embeddings: modality -> (B, D); rows are normalised here.
        eps: 0 for a diagnostic (the gradient at volume 0 is then 0); about 1e-8 for training.
        present: modality -> (B,) bool.

    Raises:
        ShapeError, NonFiniteError, ConfigError: see `unialign.embeddings.make_batch`.
    """
    check_nonnegative("eps", eps)
    batch = make_batch(embeddings, present=present)
    return unit_volumes(batch, eps=eps)


def unit_volumes(batch: Batch, *, eps: float) -> Tensor:
    """`gram_volume` of a validated batch, in the batch's dtype."""
    gram_BMM = masked_gram(batch.z_MBD, batch.present_MB)
    det_B, _ = determinant_and_adjugate(gram_BMM)
    return safe_sqrt(det_B.clamp(min=0) + eps).to(batch.z_MBD.dtype)


def cross_volumes(batch: Batch, *, anchor: int, eps: float) -> Tensor:
    """Volume of the anchor of item i with the other modalities of item j, (B, B).

    vol_ij^2 = det(H_j) - g_ij^T adj(H_j) g_ij, H_j the Gram matrix of tuple j without the anchor and g_ij the cosines
    of anchor i with its members: M - 1 matrix products instead of B^2 determinants. The diagonal, where this difference
    cancels as the modalities agree, is taken in float64 throughout.
    """
    gram_BMM = masked_gram(batch.z_MBD, batch.present_MB)
    others = [m for m in range(len(batch.names)) if m != anchor]
    det_B, adj_BKK = determinant_and_adjugate(gram_BMM[:, others][:, :, others])
    own_BK = gram_BMM[:, anchor, others]
    det_full_B = gram_BMM[:, anchor, anchor] * det_B - torch.einsum("bk,bkn,bn->b", own_BK, adj_BKK, own_BK)
    # Absent members are zero rows, so their cosines vanish and their axis adds nothing to the quadratic form.
    z = batch.z_MBD.unbind(0)
    cosines = [z[anchor] @ z[m].mT for m in others]
    adj_KKB = adj_BKK.permute(1, 2, 0).to(batch.z_MBD.dtype)
    det_B, det_full_B = det_B.to(batch.z_MBD.dtype), det_full_B.to(batch.z_MBD.dtype)
    volume_BB: Tensor = _CrossVolumes.apply(eps, det_B, det_full_B, adj_KKB, *cosines)  # type: ignore[no-untyped-call]
    return volume_BB


class _CrossVolumes(torch.autograd.Function):
    """sqrt(max(det_j - sum_kn adj_jkn g_ijk g_ijn, 0) + eps), det_full on the diagonal, with its closed-form gradient.

    It keeps the cosines and the volumes only: autograd would keep every (B, B) step between them.
    """

    @staticmethod
    def forward(ctx: Any, eps: float, det_B: Tensor, det_full_B: Tensor, adj_KKB: Tensor, *cosines: Tensor) -> Tensor:
        square_BB = det_B.expand(len(det_B), -1)
        for half_BB, cosine_BB in zip(_adjugate_products(adj_KKB, cosines), cosines, strict=True):
            square_BB = torch.addcmul(square_BB, half_BB, cosine_BB, value=-1)
        square_BB.diagonal().copy_(det_full_B)
        volume_BB = square_BB.clamp_(min=0).add_(eps).sqrt_()
        ctx.floor = torch.zeros((), dtype=det_B.dtype).add_(eps).sqrt_().item()
        ctx.save_for_backward(volume_BB, adj_KKB, *cosines)
        return volume_BB

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BB: Tensor) -> tuple[Tensor | None, ...]:
        volume_BB, adj_KKB, *cosines = ctx.saved_tensors
        # At its floor a volume is flat; without one its slope at 0 is taken as 0.
        slope_BB = torch.where(volume_BB > ctx.floor, gradient_BB / (2 * volume_BB), 0.0)
        own_B = slope_BB.diagonal().clone()
        slope_BB.fill_diagonal_(0)
        adj_slope_KKB = torch.empty_like(adj_KKB)
        slopes = []
        for k, (half_BB, cosine_BB) in enumerate(zip(_adjugate_products(adj_KKB, cosines), cosines, strict=True)):
            slopes.append(half_BB.mul_(slope_BB).mul_(-2))
            weighted_BB = slope_BB * cosine_BB
            for n in range(k + 1):
                adj_slope_KKB[k, n] = adj_slope_KKB[n, k] = -(weighted_BB * cosines[n]).sum(0)
        return None, slope_BB.sum(0), own_B, adj_slope_KKB, *slopes


def _adjugate_products(adj_KKB: Tensor, cosines: Sequence[Tensor]) -> Iterator[Tensor]:
    """sum_n adj_jkn g_ijn for each k, (B, B)."""
    for row_KB in adj_KKB:
        product_BB = row_KB[0] * cosines[0]
        for weight_B, cosine_BB in zip(row_KB[1:], cosines[1:], strict=True):
            product_BB.addcmul_(weight_B, cosine_BB)
        yield product_BB


def determinant_and_adjugate(matrix_BMM: Tensor) -> tuple[Tensor, Tensor]:
    """det and adj of small matrices by Faddeev-LeVerrier: products and traces only, smooth at singular matrices."""
    size = matrix_BMM.shape[-1]
    eye_MM = torch.eye(size, dtype=matrix_BMM.dtype, device=matrix_BMM.device)
    step_BMM = eye_MM.expand_as(matrix_BMM)
    sign = 1.0
    for k in range(1, size):
        product_BMM = matrix_BMM if k == 1 else matrix_BMM @ step_BMM
        coefficient_B = product_BMM.diagonal(dim1=-2, dim2=-1).sum(-1) / k
        step_BMM = product_BMM - coefficient_B[..., None, None] * eye_MM
        sign = -sign
    det_B = (matrix_BMM * step_BMM.mT).sum((-2, -1)) / size
    return sign * det_B, sign * step_BMM


def safe_sqrt(x: Tensor) -> Tensor:
    """sqrt with gradient 0, not infinity, at exactly 0."""
    positive = x > 0
    return torch.where(positive, torch.sqrt(torch.where(positive, x, 1.0)), 0.0)


def volume_floor(dtype: torch.dtype) -> float:
    """eps of the training volume: the smallest at which the dtype still resolves a determinant."""
    return 1e-14 if dtype == torch.float64 else 1e-8


def masked_gram(z_MBD: Tensor, present_MB: Tensor) -> Tensor:
    """(B, M, M) float64 Gram matrix of unit rows; an absent modality is one more orthonormal axis."""
    gram_BMM = wide_gram(z_MBD)
    return gram_BMM + torch.diag_embed((~present_MB).to(gram_BMM.dtype).mT)
