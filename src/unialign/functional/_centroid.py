"""Compute the centroids of tuples (paper Eq. 11).

Shapes: `M` modalities, `B` items, `D` dimension.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from unialign.batch import Batch, make_batch
from unialign.functional._order_free_sum import order_free_sum


def centroids(embeddings: Mapping[str, Tensor], *, present: Mapping[str, Tensor] | None = None) -> Tensor:
    """Return the (B, D) centroids of the items, the normalized means of their present modalities.

    Rows have unit length, except that a row is 0 if the item has no modality or its vectors cancel (their sum is
    shorter than 1e-6).

    Raises:
        ShapeError, NonFiniteError, ConfigError: see `unialign.batch.make_batch`.
    """
    return unit_centroids(make_batch(embeddings, present=present, minimum=1))[0]


def unit_centroids(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the `centroids` of a validated batch, and the (B,) mask of the nonzero centroids."""
    return unit_or_zero(order_free_sum(batch.z_MBD))


def unit_or_zero(sum_BD: Tensor) -> tuple[Tensor, Tensor]:
    """Rows shorter than 1e-6 become 0; also return the (B,) mask of the nonzero rows."""
    # Avoid vector_norm(...).clamp, whose gradient at exactly 0 is NaN.
    square_B1 = (sum_BD * sum_BD).sum(-1, keepdim=True)
    defined_B1 = square_B1 > 1e-12
    norm_B1 = torch.sqrt(torch.where(defined_B1, square_B1, 1.0))
    return torch.where(defined_B1, sum_BD / norm_B1, 0.0), defined_B1[:, 0]
