"""Compute volumes of parallelotopes spanned by tuples of unit vectors (GRAM, Cicchetti et al. 2025; paper Eq. 12).

The squared volume, a determinant, is computed as a polynomial of the cosines, without inverse or factorization, so
value and gradient are exact even where modalities coincide (where the published code gives NaN gradients).
Determinants of tuples are computed in float64: in float32, rounding errors dominate for nearly equal vectors.

Shapes: `M` modalities, `K` = M - 1 others, `B` items, `D` dimension.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from unialign._checks import check_nonnegative
from unialign.batch import Batch, make_batch
from unialign.functional._float64_gram import masked_gram
from unialign.ops import safe_sqrt


def gram_volume(
    embeddings: Mapping[str, Tensor], *, eps: float = 0.0, present: Mapping[str, Tensor] | None = None
) -> Tensor:
    """Return the volume sqrt(max(det G_i, 0) + eps) of each item's Gram matrix, (B,), in [0, 1].

    The volume is 1 for orthonormal vectors, |sin| of the angle for M = 2, and 0 for linearly dependent vectors; for
    M >= 3 three coplanar or two opposite vectors suffice. An absent modality counts as an extra
    orthonormal axis, so the result is the volume of the present ones (1 for a single one).

    Args:
        embeddings: modality -> (B, D); rows are normalized here.
        eps: 0 for evaluation (the gradient at volume 0 is then 0); about 1e-8 for training.
        present: modality -> (B,) bool.

    Raises:
        ShapeError, NonFiniteError, ConfigError: see `unialign.batch.make_batch`.
    """
    check_nonnegative("eps", eps)
    batch = make_batch(embeddings, present=present)
    return unit_volumes(batch, eps=eps)


def unit_volumes(batch: Batch, *, eps: float) -> Tensor:
    """Return `gram_volume` of a validated batch, in the batch's dtype."""
    gram_BMM = masked_gram(batch.z_MBD, batch.present_MB)
    det_B, _ = determinant_and_adjugate(gram_BMM)
    return safe_sqrt(det_B.clamp(min=0) + eps).to(batch.z_MBD.dtype)


def determinant_and_adjugate(matrix_BMM: Tensor) -> tuple[Tensor, Tensor]:
    """Return det and adj of small matrices by the Faddeev-LeVerrier algorithm, smooth at singular matrices."""
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
