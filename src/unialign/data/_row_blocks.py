"""Read rows of large arrays, such as memory-mapped columns, in blocks of bounded size.

Shapes: `N` rows of an array, `W` dimension, `R` chosen rows, `b` rows of a block.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.data._concatenated_column import ConcatenatedColumn
from unialign.io import MappedPages

__all__ = ["RowReader", "row_blocks"]

# Number of rows read between two checks of resident memory; reading a row may also load neighboring pages.
_ROWS_PER_CHECK = 512


class RowReader:
    """Reads rows of an (N, W) array in any order.

    Args:
        pages: limits the resident memory of mapped files; readers may share an instance. Default: a new instance.
    """

    def __init__(self, array_NW: NDArray[Any], *, pages: MappedPages | None = None) -> None:
        self._array_NW: Any = array_NW
        self._pages = MappedPages([array_NW]) if pages is None else pages

    def read(self, rows_R: NDArray[np.int64], *, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Return a copy of the (R, W) rows in the stored dtype, or write it to `out`; ascending order is fastest."""
        array_NW = self._array_NW
        out_RW = np.empty((len(rows_R), array_NW.shape[1]), array_NW.dtype) if out is None else out
        for start in range(0, len(rows_R), _ROWS_PER_CHECK):
            part = slice(start, start + _ROWS_PER_CHECK)
            if isinstance(array_NW, ConcatenatedColumn):
                array_NW.read(rows_R[part], out_RW[part])
            elif array_NW.flags.c_contiguous:
                # `take` is four times faster than indexing, but would copy an array that is not contiguous.
                array_NW.take(rows_R[part], 0, out_RW[part], "clip")
            else:
                out_RW[part] = array_NW[rows_R[part]]
            self._pages.limit()
        return out_RW


def row_blocks(
    array_NW: NDArray[Any], rows_R: NDArray[np.int64], block_rows: int
) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Yield blocks of ascending rows: a slice of `rows_R`, and the (b, W) rows at this slice, which may be a view."""
    pages = MappedPages([array_NW])
    reader = RowReader(array_NW, pages=pages)
    for start in range(0, len(rows_R), block_rows):
        rows_b = rows_R[start : start + block_rows]
        first, last = int(rows_b[0]), int(rows_b[-1])
        is_run = last - first + 1 == len(rows_b) and bool((np.diff(rows_b) == 1).all())
        yield slice(start, start + len(rows_b)), array_NW[first : last + 1] if is_run else reader.read(rows_b)
        pages.limit()
    pages.release()
