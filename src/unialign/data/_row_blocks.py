"""Read rows of arrays of any size, such as memory-mapped columns, with memory bounded by a block.

Shapes: `N` rows of an array, `W` dimension, `R` chosen rows, `b` rows of a block.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.io import MappedPages

__all__ = ["RowReader", "row_blocks"]

# Number of rows read between two checks of resident memory; reading a row may load the pages around it, too.
_ROWS_PER_CHECK = 512


class RowReader:
    """Reads rows of an (N, W) array in any order.

    Args:
        pages: keeps the memory of mapped files bounded; several readers may share one. None: one for this array.
    """

    def __init__(self, array_NW: NDArray[Any], *, pages: MappedPages | None = None) -> None:
        self._array_NW = array_NW
        self._pages = MappedPages([array_NW]) if pages is None else pages

    def read(self, rows_R: NDArray[np.int64], *, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Return a copy of these rows, (R, W) in the dtype of the array, or fill `out`; ascending rows are fastest."""
        array_NW = self._array_NW
        out_RW = np.empty((len(rows_R), array_NW.shape[1]), array_NW.dtype) if out is None else out
        for start in range(0, len(rows_R), _ROWS_PER_CHECK):
            part = slice(start, start + _ROWS_PER_CHECK)
            if array_NW.flags.c_contiguous:
                # Four times faster than indexing; for other memory layouts, `take` would copy the whole array first.
                array_NW.take(rows_R[part], 0, out_RW[part], "clip")
            else:
                out_RW[part] = array_NW[rows_R[part]]
            self._pages.limit()
        return out_RW


def row_blocks(
    array_NW: NDArray[Any], rows_R: NDArray[np.int64], block_rows: int
) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Yield consecutive parts of ascending rows: the slice of `rows_R`, and its (b, W) rows, which may be a view."""
    pages = MappedPages([array_NW])
    reader = RowReader(array_NW, pages=pages)
    for start in range(0, len(rows_R), block_rows):
        rows_b = rows_R[start : start + block_rows]
        first, last = int(rows_b[0]), int(rows_b[-1])
        is_run = last - first + 1 == len(rows_b) and bool((np.diff(rows_b) == 1).all())
        yield slice(start, start + len(rows_b)), array_NW[first : last + 1] if is_run else reader.read(rows_b)
        pages.limit()
    pages.release()
