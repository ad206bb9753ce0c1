"""Compute singular values and leading directions of tuples (PMRL, Liu et al. 2025).

The singular values of the D x M matrix Z of a tuple are sigma_k = sqrt(lambda_k), where lambda_k are the eigenvalues of
the M x M Gram matrix G = Z^T Z. The eigenvectors v_k of G give the left singular vectors Z v_k / sigma_k. This avoids
D x D factors. Backpropagation through the decomposition is also avoided, because perturbation theory gives the exact
derivatives:

    d lambda_k = v_k^T dG v_k,        d v_1 = sum_k v_k (v_k^T dG v_1) / (lambda_1 - lambda_k).

Shapes: `M` modalities, `K` = min(M, D) singular values, `B` items, `D` dimension.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from unialign._single_backward import first_order_only
from unialign.batch import Batch
from unialign.functional._float64_gram import to_float64

# Eigenvalues below _ZERO times the largest are treated as 0, and eigenvalues that differ by less than _TIE times the
# largest are treated as ties.
_ZERO, _TIE = 1e-14, 1e-6
# Rounding of float32 rows changes the entries of a leading eigenvector by less than _LEVEL divided by the relative gap
# between the two largest eigenvalues. If the sum of the entries is smaller than this bound, the leading eigenvector is
# treated as orthogonal to the mean of the tuple.
_LEVEL = 1e-6
_NO_SECOND_DERIVATIVE = "singular values and vectors of PMRL support first derivatives only, under every backend"


class SingularParts(NamedTuple):
    """Singular values and leading left singular vector of each tuple.

    Attributes:
        sigma_BK: float64, in descending order; 0 with gradient 0 where a tuple has fewer values.
        own_BK: mask of the first min(D, number of present modalities) values, which are the singular values of the
            tuple.
        direction_BD: leading left singular vector in the batch's dtype, with <u_1, mean_m z^m> >= 0; 0 for an empty
            tuple. If the mean is orthogonal to u_1, as for two vectors with a negative cosine, the first modality
            determines the sign. If the largest values tie, u_1 is the unit vector of their singular subspace closest to
            the mean.
    """

    sigma_BK: Tensor
    own_BK: Tensor
    direction_BD: Tensor


def singular_parts(batch: Batch) -> SingularParts:
    """Return the singular values and the oriented leading left singular vector of each tuple (PMRL).

    The gradient of a singular value is u_k v_k^T, which is bounded even for equal values, and 0 where the value is 0.
    If the two largest values tie, the leading vector is defined only up to a rotation in their plane; the gradient then
    includes changes of the plane but not rotations within the plane.
    """
    z_MBD = batch.z_MBD
    values = min(len(z_MBD), z_MBD.shape[-1])
    own_BK = torch.arange(values, device=z_MBD.device) < batch.present_MB.sum(0)[:, None]
    sigma_BM, direction_BD = _Singular.apply(z_MBD)  # type: ignore[no-untyped-call]
    return SingularParts(sigma_BM[:, :values], own_BK, direction_BD)


class _Singular(torch.autograd.Function):
    """Compute sigma_k and u_1 = Z v_1 / sigma_1 of the rows z / |z| in float64.

    The squared length of float32 unit rows differs from 1 by up to 1e-7. With such a diagonal in the Gram matrix,
    rounding errors would determine the leading eigenvector of two vectors with a small cosine. The gradient also needs
    float64, since the gradient divides by small singular values and large entries cancel.
    """

    @staticmethod
    def forward(ctx: Any, z_MBD: Tensor) -> tuple[Tensor, Tensor]:
        z_BMD, _ = _unit_tuples(z_MBD)
        gram_BMM = z_BMD @ z_BMD.mT
        gram_BMM.diagonal(dim1=-2, dim2=-1).copy_((z_MBD != 0).any(-1).mT)
        rising_BM, vectors_BMM = torch.linalg.eigh(gram_BMM)
        lambda_BM = rising_BM.flip(-1)
        v_BMM = _orient(lambda_BM, vectors_BMM.flip(-1))
        sigma_BM = torch.sqrt(torch.where(lambda_BM > _ZERO * lambda_BM[:, :1], lambda_BM, 0.0))
        # The direction of an empty tuple is 0 for any divisor, since its vectors are 0.
        length_B1 = torch.where(sigma_BM > 0, sigma_BM, 1.0)[:, :1]
        direction_BD = ((v_BMM[:, :, 0] / length_B1)[:, None] @ z_BMD)[:, 0].to(z_MBD.dtype)
        ctx.save_for_backward(z_MBD, sigma_BM, v_BMM)
        return sigma_BM, direction_BD

    @staticmethod
    def backward(ctx: Any, slope_BM: Tensor, slope_BD: Tensor) -> Tensor:
        saved = ctx.saved_tensors
        with torch.no_grad():
            slope_MBD = _gradient(slope_BM, slope_BD, *saved)
        return first_order_only(slope_MBD, saved[0], slope_BM, slope_BD, message=_NO_SECOND_DERIVATIVE)


def _gradient(slope_BM: Tensor, slope_BD: Tensor, z_MBD: Tensor, sigma_BM: Tensor, v_BMM: Tensor) -> Tensor:
    """Gradient of <slope_BM, sigma> + <slope_BD, u_1> with respect to Z."""
    z_BMD, norm_BM1 = _unit_tuples(z_MBD)
    slope_BD = slope_BD.to(z_BMD.dtype)
    lambda_BM, length_B1 = sigma_BM**2, torch.where(sigma_BM > 0, sigma_BM, 1.0)[:, :1]
    # dL = <slope_u, sum_m (v_1m dz^m + z^m dv_1m) - u_1 d sigma_1> / sigma_1 + sum_k slope_k d sigma_k.
    toward_BM1 = (z_BMD @ slope_BD[..., None]) / length_B1[..., None]
    along_B1 = (v_BMM[:, None, :, 0] @ toward_BM1)[..., 0]
    first_B1 = slope_BM[:, :1] - along_B1 / length_B1
    by_lambda_BM = torch.cat([first_B1, slope_BM[:, 1:]], -1) / (2 * torch.where(sigma_BM > 0, sigma_BM, torch.inf))
    gap_BM = torch.where(_tied(lambda_BM), torch.inf, lambda_BM[:, :1] - lambda_BM)
    turn_BM = (v_BMM.mT @ toward_BM1)[..., 0] / gap_BM
    # dL / dG = V A V^T, with the gradients of the eigenvalues on the diagonal of A and those of v_1 in its first row
    # and column.
    inner_BMM = torch.diag_embed(2 * by_lambda_BM)
    inner_BMM[:, :, 0] += turn_BM
    inner_BMM[:, 0, :] += turn_BM
    by_gram_BMM = v_BMM @ inner_BMM @ v_BMM.mT
    slope_BMD = (v_BMM[:, :, :1] / length_B1[..., None]) * slope_BD[:, None]
    slope_BMD.baddbmm_(by_gram_BMM, z_BMD)
    # Remove the radial part of the gradient, since the rows are normalized.
    slope_BMD.addcmul_(z_BMD, (z_BMD * slope_BMD).sum(-1, keepdim=True), value=-1)
    return (slope_BMD / norm_BM1).transpose(0, 1).to(z_MBD.dtype)


def _unit_tuples(z_MBD: Tensor) -> tuple[Tensor, Tensor]:
    z_BMD = to_float64(z_MBD).transpose(0, 1)
    norm_BM1 = torch.linalg.vector_norm(z_BMD, dim=-1, keepdim=True)
    norm_BM1 = torch.where(norm_BM1 > 0, norm_BM1, 1.0)
    return z_BMD / norm_BM1, norm_BM1


def _tied(lambda_BM: Tensor) -> Tensor:
    """The largest eigenvalue ties with itself."""
    return lambda_BM[:, :1] - lambda_BM <= _TIE * lambda_BM[:, :1]


def _orient(lambda_BM: Tensor, v_BMM: Tensor) -> Tensor:
    """Orient the first eigenvector toward the mean of the tuple.

    If the eigenvector is orthogonal to the mean, it is oriented toward the first modality. Without ties, only the sign
    of v_1 is chosen. Tied eigenvectors are defined only up to a rotation of their subspace; a reflection makes v_1 the
    normalized projection of the mean onto this subspace.
    """
    tied_BM = _tied(lambda_BM)
    # sum_m <u_1, z^m> = sigma_1 sum_m v_1m.
    weight_M = 0.5 ** torch.arange(lambda_BM.shape[-1], dtype=v_BMM.dtype, device=v_BMM.device)
    lean_BM, first_BM = (torch.where(tied_BM, w_M @ v_BMM, 0.0) for w_M in (torch.ones_like(weight_M), weight_M))
    below_B1 = torch.where(tied_BM, -torch.inf, lambda_BM).amax(-1, keepdim=True).clamp(min=0)
    gap_B1 = 1 - below_B1 / torch.where(lambda_BM[:, :1] > 0, lambda_BM[:, :1], 1.0)
    lean_norm_B1 = torch.linalg.vector_norm(lean_BM, dim=-1, keepdim=True)
    lean_BM = torch.where(lean_norm_B1 * gap_B1 < _LEVEL, first_BM, lean_BM)
    length_B1 = torch.linalg.vector_norm(lean_BM, dim=-1, keepdim=True)
    lean_BM = lean_BM / torch.where(length_B1 > 0, length_B1, 1.0)
    # Householder reflection that swaps e_1 and the target; the identity if they are equal.
    mirror_BM = -lean_BM
    mirror_BM[:, 0] += 1
    square_B1 = (mirror_BM * mirror_BM).sum(-1, keepdim=True)
    factor_B1 = torch.where(square_B1 > 0, 2 / torch.where(square_B1 > 0, square_B1, 1.0), 0.0)
    return v_BMM - (v_BMM @ mirror_BM[..., None]) * (factor_B1 * mirror_BM)[:, None]
