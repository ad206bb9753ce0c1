"""Read table cells given as Python values, as the CSV and JSON Lines readers produce them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.errors import DataError
from unialign.readers._table import dense_rows
from unialign.readers._text_vectors import is_absent, parse_rows

__all__ = ["ListCells"]

Array = NDArray[Any]


class ListCells:
    def __init__(self, cells: Sequence[Any]) -> None:
        self.cells = cells

    def __len__(self) -> int:
        return len(self.cells)

    def dim(self) -> int:
        return next((len(cell) for cell in self.cells if isinstance(cell, list) and cell), 0)

    def absent(self) -> Array:
        return np.array([is_absent(c) if isinstance(c, str) else c is None or c == [] for c in self.cells], np.bool_)

    def dense(self, dim: int, dtype: str, where: str, start: int) -> Array:
        if not any(isinstance(cell, list) for cell in self.cells):
            return parse_rows(self.texts(), dim, where, start)
        found = [_vector(cell, f"{where} row {start + i}") for i, cell in enumerate(self.cells)]
        lengths_c = np.array([len(vector_D) for vector_D in found], np.int64)
        return dense_rows(lengths_c, np.concatenate(found), dim, dtype, where, start)

    def numbers(self, dtype: str) -> Array:
        numbers_c = np.full(len(self.cells), np.nan)
        for i, cell in enumerate(self.cells):
            if cell is not None and cell != "":
                try:
                    numbers_c[i] = float(cell)
                except (TypeError, ValueError):
                    raise DataError(f"a cell of a numeric column is {cell!r:.60}; expected a number") from None
        return numbers_c.astype(dtype)

    def values(self, *, fill: bool) -> Array | None:
        given = [cell for cell in self.cells if cell is not None and cell != ""]
        if len(given) < len(self.cells) and not fill:
            return None
        if all(isinstance(cell, bool) for cell in self.cells):
            return np.array(self.cells, np.bool_)
        is_null = [cell is None or cell == "" for cell in self.cells]
        try:
            numbers = [-1 if null else _integer(cell) for cell, null in zip(self.cells, is_null, strict=True)]
            return np.array(numbers, np.int64)
        except (ValueError, OverflowError):
            return np.array(["" if null else str(c) for c, null in zip(self.cells, is_null, strict=True)], np.str_)

    def texts(self) -> list[str | None]:
        return [cell if cell is None or isinstance(cell, str) else str(cell) for cell in self.cells]


def _integer(cell: Any) -> int:
    """Convert a string to an integer; raise ValueError if it differs from str(int), as in "007"."""
    number = int(cell)
    if isinstance(cell, float | bool) or str(number) != str(cell).strip():
        raise ValueError(cell)
    return number


def _vector(cell: Any, where: str) -> Array:
    if cell is None:
        return np.empty(0)
    try:
        vector_D = np.array(cell, np.float64)
    except (TypeError, ValueError):
        vector_D = np.empty((0, 0))
    if vector_D.ndim != 1:
        raise DataError(f"{where} is {cell!r:.60}, expected a list of numbers; correct the cell")
    return vector_D
