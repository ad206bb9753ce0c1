"""A column that concatenates the rows of several arrays, such as memory-mapped files, without copying them.

Shapes: `N` rows, `W` dimension, `R` chosen rows.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["ConcatenatedColumn"]

Array = NDArray[Any]


class ConcatenatedColumn:
    """Read-only (N, W) array-like. Indexing by rows returns an array; a slice within one part is a view.

    Args:
        parts: (n, W) arrays; or an integer n for n absent rows, which are read as zeros.
        dtype: dtype of the column, which must be able to represent the dtypes of all parts.
    """

    ndim = 2

    def __init__(self, parts: Sequence[Array | int], dtype: DTypeLike, dim: int) -> None:
        self.dtype = np.dtype(dtype)
        # Broadcast one row of zeros, so that absent rows take no memory.
        self.parts = [
            np.broadcast_to(np.zeros((1, dim), self.dtype), (part, dim)) if isinstance(part, int) else part
            for part in parts
        ]
        self._starts = np.cumsum([0, *(len(part) for part in self.parts)])
        self.shape = int(self._starts[-1]), dim

    @property
    def size(self) -> int:
        return self.shape[0] * self.shape[1]

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, rows_R: NDArray[np.int64], out_RW: Array) -> None:
        """Write the rows at these numbers, from 0 to N - 1, to `out_RW`."""
        for start, stop, part in zip(self._starts[:-1], self._starts[1:], self.parts, strict=True):
            inside_R = (rows_R >= start) & (rows_R < stop)
            if inside_R.all():
                out_RW[...] = part[rows_R - start]
                return
            if inside_R.any():
                out_RW[inside_R] = part[rows_R[inside_R] - start]

    def __getitem__(self, key: Any) -> Array:
        if isinstance(key, tuple):
            rows, *others = key
            found = self[rows]
            result: Array = found[(slice(None), *others)] if found.ndim == 2 else found[tuple(others)]
            return result
        if isinstance(key, slice):
            return self._slice(*key.indices(len(self)), key)
        rows = np.asarray(key)
        if rows.dtype == np.bool_:
            rows = np.flatnonzero(np.broadcast_to(rows, (len(self),)) if rows.ndim == 0 else rows)
        flat_R = rows.reshape(-1).astype(np.int64)
        if len(flat_R) and not -len(self) <= flat_R.min() <= flat_R.max() < len(self):
            raise IndexError(f"row {flat_R[np.abs(flat_R).argmax()]} is out of bounds for {len(self)} rows")
        out_RW = np.empty((len(flat_R), self.shape[1]), self.dtype)
        self.read(np.where(flat_R < 0, flat_R + len(self), flat_R), out_RW)
        return out_RW.reshape(*rows.shape, self.shape[1])

    def _slice(self, start: int, stop: int, step: int, key: slice) -> Array:
        for first, last, part in zip(self._starts[:-1], self._starts[1:], self.parts, strict=True):
            if step == 1 and first <= start <= stop <= last and part.dtype == self.dtype:
                return part[start - first : stop - first]
        return self[np.arange(*key.indices(len(self)))]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:
        """Load all rows."""
        if copy is False:
            raise ValueError("the rows of several arrays cannot become one array without a copy")
        return np.concatenate(self.parts, dtype=self.dtype if dtype is None else dtype)
