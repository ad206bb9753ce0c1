"""Singular values and leading directions of tuples (PMRL, Liu et al. 2025).

The D x M matrix Z of a tuple has the singular values sqrt(lambda_k(G)) with G = Z^T Z, an M x M matrix: its
eigenvectors v_k give the left vectors Z v_k / sigma_k. No D x D factor is built, and nothing is differentiated through
a decomposition: the eigenvectors are constants, and perturbation theory gives the exact slopes,

    d lambda_k = v_k^T dG v_k,        d v_1 = sum_k v_k (v_k^T dG v_1) / (lambda_1 - lambda_k).

Shapes: `M` modalities, `K` = min(M, D) singular values, `B` items, `D` width.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from unialign.embeddings import Batch
from unialign.functional._centroid import unit_or_zero

__all__ = ["SingularParts", "singular_parts"]

# Below this share of the largest eigenvalue one is rounding noise of a zero, or a gap that of a tie.
_ZERO, _TIE = 1e-14, 1e-6
# Below this sum of its entries a leading eigenvector leans to no side.
_LEVEL = 1e-6


class SingularParts(NamedTuple):
    """The singular values of each tuple and its leading left vector.

    Attributes:
        sigma_BK: in falling order, float64; 0 with gradient 0 where a tuple has no such value.
        own_BK: which of them a tuple has: min(D, number of present modalities).
        direction_BD: leading left vector, in the batch's dtype, with <u_1, mean_m z^m> >= 0; 0 of an empty tuple. Where
            the mean is orthogonal to it, as of two vectors with a negative cosine, the first modality has its side.
    """

    sigma_BK: Tensor
    own_BK: Tensor
    direction_BD: Tensor


def singular_parts(batch: Batch) -> SingularParts:
    """Singular values and oriented leading left vectors of a validated batch.

    A singular value's gradient is u_k v_k^T, bounded also where values are equal, and 0 where the value is 0. Where the
    two largest tie, any vector of their plane is a leading one: the gradient then moves the direction with the
    plane, not inside it.
    """
    z_MBD = batch.z_MBD
    # MPS has no float64; its users get the best it has.
    z_BMD = (z_MBD.double() if z_MBD.device.type != "mps" else z_MBD).transpose(0, 1)
    gram_BMM = z_BMD @ z_BMD.mT
    with torch.no_grad():
        rising_BM, vectors_BMM = torch.linalg.eigh(gram_BMM)
        fixed_BM, v_BMM = rising_BM.flip(-1), vectors_BMM.flip(-1)
    # [k, n] is v_k^T G v_n: the diagonal holds the eigenvalues, and beside it stand zeros with a slope.
    rotated_BMM = v_BMM.mT @ gram_BMM @ v_BMM

    lambda_BM = rotated_BMM.diagonal(dim1=-2, dim2=-1)
    positive_BM = fixed_BM > _ZERO * fixed_BM[:, :1]
    sigma_BM = torch.where(positive_BM, torch.sqrt(torch.where(positive_BM, lambda_BM, 1.0)), 0.0)
    values = min(len(z_MBD), z_MBD.shape[-1])
    index_K = torch.arange(values, device=z_MBD.device)
    own_BK = index_K < batch.present_MB.sum(0)[:, None]

    gap_BM = fixed_BM[:, :1] - fixed_BM
    apart_BM = gap_BM > _TIE * fixed_BM[:, :1]
    turn_BM = torch.where(apart_BM, rotated_BMM[:, :, 0] / torch.where(apart_BM, gap_BM, 1.0), 0.0)
    leading_BM = v_BMM[:, :, 0] + (v_BMM @ turn_BM[..., None])[..., 0]
    leading_BM = _sign(v_BMM[:, :, 0])[:, None] * leading_BM
    direction_BD, _ = unit_or_zero((leading_BM[:, None] @ z_BMD)[:, 0])
    return SingularParts(sigma_BM[:, :values], own_BK, direction_BD.to(z_MBD.dtype))


def _sign(leading_BM: Tensor) -> Tensor:
    """1 or -1: the sign that turns u_1 to its tuple's mean. An eigenvector's own is arbitrary: logits would flip."""
    # sum_m <u_1, z^m> = sigma_1 sum_m v_1m.
    lean_B = leading_BM.sum(-1)
    weight_M = 0.5 ** torch.arange(leading_BM.shape[-1], dtype=leading_BM.dtype, device=leading_BM.device)
    lean_B = torch.where(lean_B.abs() < _LEVEL, leading_BM @ weight_M, lean_B)
    return torch.where(lean_B >= 0, 1.0, -1.0).to(leading_BM.dtype)
