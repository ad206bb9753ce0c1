"""Reject rows of store columns that contain NaN, infinity or only zeros."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.errors import NonFiniteError
from unialign.io import CHUNK_BYTES, MappedPages

__all__ = ["check_finite_rows"]


def check_finite_rows(array_NW: NDArray[Any], mask_N: NDArray[Any] | None, column: str, *, first_row: int = 0) -> None:
    step = max(1, CHUNK_BYTES // max(1, array_NW[:1].nbytes))
    pages = MappedPages([array_NW])
    for start in range(0, len(array_NW), step):
        part_NW = array_NW[start : start + step]
        finite_NW = np.isfinite(part_NW)
        bad_N = ~finite_NW.all(axis=1) | ~part_NW.any(axis=1)
        if mask_N is not None:
            bad_N &= mask_N[start : start + step]
        if not bad_N.any():
            pages.limit()
            continue
        row = int(bad_N.argmax())
        place = int(finite_NW[row].argmin())
        found = "only zeros" if finite_NW[row].all() else f"{part_NW[row, place]} at position {place}"
        raise NonFiniteError(
            f"column {column!r}, row {first_row + start + row} holds {found}; every row must be finite and not all "
            f"zero (mark items without a usable row as absent, with `present=` in Python or with a bool array "
            f"`present.{column}` in files)"
        )
