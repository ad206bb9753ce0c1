"""Compute volumes of parallelotopes spanned by tuples of unit vectors (GRAM, Cicchetti et al. 2025; paper Eq. 12).

A volume is the product of the Gram-Schmidt heights in float64. Values and gradients keep their precision for nearly
equal vectors and are finite where modalities coincide, whereas the gradients of the published code are NaN there.

Shapes: `B` items, `D` dimension.
"""

from collections.abc import Mapping

from torch import Tensor

from unialign._checks import check_nonnegative
from unialign.batch import Batch, make_batch
from unialign.functional._float64_gram import masked_gram
from unialign.functional._orthonormal_rows import volumes
from unialign.ops import safe_sqrt


def gram_volume(
    embeddings: Mapping[str, Tensor], *, eps: float = 0.0, present: Mapping[str, Tensor] | None = None
) -> Tensor:
    """Return the (B,) volumes sqrt(max(det G_i, 0) + eps) of the items with Gram matrices G_i, in [0, 1].

    The volume is 1 for orthonormal vectors, |sin| of the angle for M = 2, and 0 for linearly dependent vectors, such as
    three coplanar or two opposite vectors. An absent modality is treated as orthogonal to all others, so the result is
    the volume of the present modalities (1 for a single modality).

    Args:
        embeddings: modality -> (B, D); rows are normalized here.
        eps: constant added to the squared volume; the gradient at volume 0 is 0 for any `eps`. Squared volumes of well
            aligned tuples are small (about 5e-11 for five vectors with cosines of 0.998), and a larger `eps` distorts
            the gradients of these volumes.
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
    return safe_sqrt(volumes(gram_BMM) ** 2 + eps).to(batch.z_MBD.dtype)
