"""Write columns that are given in parts, such as encoder outputs, with only one part in memory at a time.

Shapes: `N` items, `W` dimension of a column, `b` rows of a part.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.data._finite_rows import check_finite_rows
from unialign.data._item_values import to_numpy
from unialign.data._layout import array_file
from unialign.data._validation import check_names, float_matrix
from unialign.errors import ShapeError
from unialign.io import NpyAppender

__all__ = ["in_parts", "write_parts"]


def in_parts(columns: Any) -> bool:
    if isinstance(columns, Mapping):
        return any(_is_iterable_of_parts(value) for value in columns.values())
    return _is_iterable_of_parts(columns)


def write_parts(folder: Path, columns: Any, present: Any) -> tuple[dict[str, Any], set[str]]:
    """Write the columns that are given in parts; return all columns, and the names of the written ones, which are
    memory-mapped.
    """
    masks = present if isinstance(present, Mapping) else {}
    if not isinstance(columns, Mapping):
        together = _write_together(folder, columns, masks)
        return together, set(together)
    check_names(columns, "column")
    written = {}
    for name, value in columns.items():
        if _is_iterable_of_parts(value):
            with _ColumnWriter(folder, name, masks.get(name)) as writer:
                for part in value:
                    writer.append(part)
            written[name] = writer.result()
    return {**columns, **written}, set(written)


def _write_together(folder: Path, rows: Iterable[Any], masks: Mapping[str, Any]) -> dict[str, Any]:
    writers: dict[str, _ColumnWriter] = {}
    with ExitStack() as stack:
        for number, part in enumerate(rows):
            if not isinstance(part, Mapping):
                raise ShapeError(
                    f"part {number} is a {type(part).__name__}, expected a mapping of column names to arrays"
                )
            if not writers:
                check_names(part, "column")
                writers = {name: stack.enter_context(_ColumnWriter(folder, name, masks.get(name))) for name in part}
            if set(part) != set(writers):
                raise ShapeError(f"part {number} has the columns {list(part)}, but part 0 has {list(writers)}")
            for name, writer in writers.items():
                writer.append(part[name])
            lengths = {name: writer.rows for name, writer in writers.items()}
            if len(set(lengths.values())) > 1:
                raise ShapeError(f"after part {number}, the columns have different numbers of rows: {lengths}")
    if not writers:
        raise ShapeError("the iterable of columns yields no parts; a store needs at least one row")
    return {name: writer.result() for name, writer in writers.items()}


class _ColumnWriter:
    def __init__(self, folder: Path, name: str, mask: Any) -> None:
        self._path, self._name = folder / array_file(name), name
        self._mask_N = None if mask is None else to_numpy(mask, f"present of {name!r}")
        self._file: NpyAppender | None = None
        self._parts = 0

    def __enter__(self) -> "_ColumnWriter":
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()

    @property
    def rows(self) -> int:
        return 0 if self._file is None else self._file.rows

    def append(self, part: Any) -> None:
        number, first = self._parts, self.rows
        self._parts += 1
        try:
            part_bW = float_matrix(part, self._name, allow_empty=True)
        except ShapeError as error:
            raise ShapeError(f"part {number}: {error}") from None
        if self._file is None:
            self._path.parent.mkdir(exist_ok=True)
            self._file = NpyAppender(self._path, part_bW.dtype, part_bW.shape[1])
        width, dtype = self._file.width, self._file.dtype
        if part_bW.shape[1] != width or part_bW.dtype != dtype:
            raise ShapeError(
                f"part {number} of column {self._name!r} has dim {part_bW.shape[1]} and dtype {part_bW.dtype}, but "
                f"part 0 has dim {width} and dtype {dtype}; all parts must have the same dim and dtype"
            )
        check_finite_rows(part_bW, self._mask_of(first, len(part_bW)), self._name, first_row=first)
        self._file.append(part_bW)

    def _mask_of(self, first: int, rows: int) -> NDArray[Any] | None:
        if self._mask_N is None:
            return None
        mask_b = self._mask_N[first : first + rows]
        if mask_b.shape != (rows,) or mask_b.dtype != np.bool_:
            raise ShapeError(
                f"present of {self._name!r} has dtype {self._mask_N.dtype} and shape {self._mask_N.shape}, expected "
                f"bool and one entry per row; the parts have at least {first + rows} rows"
            )
        return mask_b

    def result(self) -> NDArray[Any]:
        """Return the written column as a memory map; the file must be closed."""
        if self._file is None or self.rows == 0:
            raise ShapeError(f"column {self._name!r} has no rows in {self._parts} parts; expected at least one row")
        result: NDArray[Any] = np.lib.format.open_memmap(self._path, mode="r")
        return result


def _is_iterable_of_parts(value: Any) -> bool:
    array_like = isinstance(value, Sequence | Mapping) or hasattr(value, "__array__") or hasattr(value, "detach")
    return isinstance(value, Iterable) and not array_like
