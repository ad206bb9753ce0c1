"""Compute singular values and leading directions of tuples (PMRL, Liu et al. 2025).

The D x M matrix Z of a tuple has the singular values sqrt(lambda_k(G)), with the M x M Gram matrix G = Z^T Z, whose
eigenvectors v_k give the left singular vectors Z v_k / sigma_k. This avoids D x D factors and backpropagation through
a decomposition: perturbation theory gives the exact derivatives,

    d lambda_k = v_k^T dG v_k,        d v_1 = sum_k v_k (v_k^T dG v_1) / (lambda_1 - lambda_k).

Shapes: `M` modalities, `K` = min(M, D) singular values, `B` items, `D` dimension.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from unialign._single_backward import first_order_only
from unialign.batch import Batch
from unialign.functional._float64_gram import to_float64

# Eigenvalues below _ZERO times the largest are treated as 0, and gaps below _TIE times the largest as ties.
_ZERO, _TIE = 1e-14, 1e-6
# If the sum of its entries is below this, a leading eigenvector is orthogonal to the mean of its tuple.
_LEVEL = 1e-6
_NO_SECOND_DERIVATIVE = "singular values and vectors of PMRL support first derivatives only, under every backend"


class SingularParts(NamedTuple):
    """Singular values and leading left singular vector of each tuple.

    Attributes:
        sigma_BK: descending, float64; 0 with gradient 0 where a tuple has no such value.
        own_BK: mask of the first min(D, number of present modalities) values, the singular values of the tuple.
        direction_BD: leading left singular vector in the batch's dtype, with <u_1, mean_m z^m> >= 0; 0 for an empty
            tuple. If the mean is orthogonal to it, as for two vectors with a negative cosine, the first modality
            determines the sign.
    """

    sigma_BK: Tensor
    own_BK: Tensor
    direction_BD: Tensor


def singular_parts(batch: Batch) -> SingularParts:
    """Return singular values and oriented leading left singular vectors of each tuple (PMRL).

    The gradient of a singular value is u_k v_k^T, bounded even for equal values, and 0 where the value is 0. If the two
    largest values tie, the leading vector is defined only up to rotation in their plane; the gradient then follows the
    plane and ignores rotation within it.
    """
    z_MBD = batch.z_MBD
    values = min(len(z_MBD), z_MBD.shape[-1])
    own_BK = torch.arange(values, device=z_MBD.device) < batch.present_MB.sum(0)[:, None]
    sigma_BM, direction_BD = _Singular.apply(z_MBD)  # type: ignore[no-untyped-call]
    return SingularParts(sigma_BM[:, :values], own_BK, direction_BD)


class _Singular(torch.autograd.Function):
    """sigma_k and u_1 = Z v_1 / sigma_1. Small matrices are float64; vectors of dim D stay in the batch's dtype."""

    @staticmethod
    def forward(ctx: Any, z_MBD: Tensor) -> tuple[Tensor, Tensor]:
        z_BMD, float64_BMD = z_MBD.transpose(0, 1), to_float64(z_MBD).transpose(0, 1)
        rising_BM, vectors_BMM = torch.linalg.eigh(float64_BMD @ float64_BMD.mT)
        lambda_BM, v_BMM = rising_BM.flip(-1), vectors_BMM.flip(-1)
        v_BMM = _sign(v_BMM[:, :, 0])[:, None, None] * v_BMM
        sigma_BM = torch.sqrt(torch.where(lambda_BM > _ZERO * lambda_BM[:, :1], lambda_BM, 0.0))
        # An empty tuple has no direction: its vectors are 0 for any divisor.
        length_B1 = torch.where(sigma_BM > 0, sigma_BM, 1.0)[:, :1]
        weight_BM = (v_BMM[:, :, 0] / length_B1).to(z_MBD.dtype)
        direction_BD = (weight_BM[:, None] @ z_BMD)[:, 0]
        ctx.save_for_backward(z_MBD, sigma_BM, v_BMM, direction_BD)
        return sigma_BM, direction_BD

    @staticmethod
    def backward(ctx: Any, slope_BM: Tensor, slope_BD: Tensor) -> Tensor:
        saved = ctx.saved_tensors
        with torch.no_grad():
            slope_MBD = _gradient(slope_BM, slope_BD, *saved)
        return first_order_only(slope_MBD, saved[0], slope_BM, slope_BD, message=_NO_SECOND_DERIVATIVE)


def _gradient(
    slope_BM: Tensor, slope_BD: Tensor, z_MBD: Tensor, sigma_BM: Tensor, v_BMM: Tensor, direction_BD: Tensor
) -> Tensor:
    """Return the gradient of <slope_BM, sigma> + <slope_BD, u_1> with respect to Z."""
    z_BMD = z_MBD.transpose(0, 1)
    lambda_BM, length_B1 = sigma_BM**2, torch.where(sigma_BM > 0, sigma_BM, 1.0)[:, :1]
    # dL = <slope_u, sum_m (v_1m dz^m + z^m dv_1m) - u_1 d sigma_1> / sigma_1 + sum_k slope_k d sigma_k.
    toward_BM1 = (z_BMD @ slope_BD[..., None]).to(v_BMM.dtype) / length_B1[..., None]
    along_B1 = (slope_BD * direction_BD).sum(-1, keepdim=True).to(v_BMM.dtype)
    first_B1 = slope_BM[:, :1] - along_B1 / length_B1
    by_lambda_BM = torch.cat([first_B1, slope_BM[:, 1:]], -1) / (2 * torch.where(sigma_BM > 0, sigma_BM, torch.inf))
    gap_BM = lambda_BM[:, :1] - lambda_BM
    gap_BM = torch.where(gap_BM > _TIE * lambda_BM[:, :1], gap_BM, torch.inf)
    turn_BM = (v_BMM.mT @ toward_BM1)[..., 0] / gap_BM
    # dL / dG = V A V^T, with the slopes of the eigenvalues on the diagonal of A and those of v_1 in its first column.
    inner_BMM = torch.diag_embed(2 * by_lambda_BM)
    inner_BMM[:, :, 0] += turn_BM
    inner_BMM[:, 0, :] += turn_BM
    by_gram_BMM = v_BMM @ inner_BMM @ v_BMM.mT
    by_vector_BM1 = (v_BMM[:, :, :1] / length_B1[..., None]).to(z_MBD.dtype)
    slope_BMD: Tensor = by_vector_BM1 * slope_BD[:, None]
    return slope_BMD.baddbmm_(by_gram_BMM.to(z_MBD.dtype), z_BMD).transpose(0, 1)


def _sign(leading_BM: Tensor) -> Tensor:
    """Return the sign, 1 or -1, that orients u_1 toward its tuple's mean, since eigenvectors have no fixed sign."""
    # sum_m <u_1, z^m> = sigma_1 sum_m v_1m.
    lean_B = leading_BM.sum(-1)
    weight_M = 0.5 ** torch.arange(leading_BM.shape[-1], dtype=leading_BM.dtype, device=leading_BM.device)
    lean_B = torch.where(lean_B.abs() < _LEVEL, leading_BM @ weight_M, lean_B)
    return torch.where(lean_B >= 0, 1.0, -1.0).to(leading_BM.dtype)
