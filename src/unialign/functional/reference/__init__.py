"""Slow twins of objectives and divergences: loops over modalities, items and pairs in float64, one formula a function.

They are the ground truth of the tests; "decision N" is choice N of docs/architecture.md. They share no code with the
fast functions, trust their input, and are differentiable, so that gradients can be compared as well as values.
"""

from unialign.functional.reference._core import (
    alignment,
    centroids,
    cross_volumes,
    gram,
    gram_volumes,
    infonce,
    log_kernel,
    symmetric_contrast,
    unialign,
    uniformity,
)
from unialign.functional.reference._rows import Ids, Presence, Rows, mean, tuple_of, unit_rows

__all__ = [
    "Ids",
    "Presence",
    "Rows",
    "alignment",
    "centroids",
    "cross_volumes",
    "gram",
    "gram_volumes",
    "infonce",
    "log_kernel",
    "mean",
    "symmetric_contrast",
    "tuple_of",
    "unialign",
    "uniformity",
    "unit_rows",
]
