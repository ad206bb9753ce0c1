"""Check vectors."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.errors import MediaError
from unialign.media._decoding import Decoding

__all__ = ["as_vector"]


def as_vector(values: Any, decoding: Decoding) -> NDArray[np.float32]:
    """Convert numbers to a vector; an array of shape (1, D) is also accepted."""
    try:
        raw = np.asarray(values)
    except ValueError:  # lists of different lengths
        raise MediaError("wrong-shape", "the numbers are not a one-dimensional list") from None
    if raw.dtype.kind not in "iufb":
        raise MediaError("wrong-shape", f"expected numbers, found values of type {raw.dtype}")
    if raw.ndim == 2 and raw.shape[0] == 1:
        raw = raw[0]
    if raw.ndim != 1 or raw.size == 0:
        raise MediaError("wrong-shape", f"expected one vector, found an array of shape {raw.shape}")
    if decoding.dim is not None and len(raw) != decoding.dim:
        raise MediaError("wrong-shape", f"{len(raw)} numbers, expected {decoding.dim}")
    with np.errstate(over="ignore"):
        vector_D = raw.astype(np.float32)
    finite_D = np.isfinite(vector_D)
    if not finite_D.all():
        place = int(np.argmin(finite_D))
        raise MediaError(
            "not-finite", f"number {place} is {raw[place]}, expected a finite number within the range of float32"
        )
    return vector_D
