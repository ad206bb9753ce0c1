"""List the arrays of a table with named columns; shared by all tabular formats.

Shapes: `N` rows, `D` dimension, `c` rows of a batch.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from unialign.errors import DataError, ShapeError
from unialign.readers._columns import Series, choose_columns
from unialign.readers._entry import ArrayEntry, EmbeddingFile, unreadable
from unialign.readers._rows import StreamRows, rows_per_chunk
from unialign.readers._text_vectors import TextVectors, recognize_vectors

__all__ = ["Cells", "Column", "Table", "dense_rows", "table_file"]

Array = NDArray[Any]

# Number of rows that determine the dim of a vector column, and whether a text column contains vectors.
_FIRST_ROWS = 64
# Columns in which null cells mark unlabeled or unnamed items.
_MAY_BE_NULL = ("labels", "names")
_VALUE_ROWS, _MASK_ROWS = 1 << 16, 1 << 12


@dataclass(frozen=True)
class Column:
    """Type of a column: `kind` is "vectors", "float", "integer", "bool", "text", or "" if the column cannot be used."""

    kind: str
    dtype: str = ""
    what: str = ""


class Cells(Protocol):
    def __len__(self) -> int: ...

    def dim(self) -> int:
        """Return the length of the first non-empty vector, or 0."""

    def absent(self) -> Array:
        """Return the (c,) mask of null and empty vectors."""

    def dense(self, dim: int, dtype: str, where: str, start: int) -> Array:
        """Return (c, dim) vectors, NaN if absent. Errors name the row, counted from `start`."""

    def numbers(self, dtype: str) -> Array:
        """Return (c,) floats, NaN for null cells."""

    def values(self, *, fill: bool) -> Array | None:
        """Return (c,) values. Null cells become -1 or "" if `fill` is True; otherwise, None is returned if there are
        any.
        """

    def texts(self) -> list[str | None]: ...


class Table(Protocol):
    path: Path

    @property
    def rows(self) -> int: ...

    @property
    def columns(self) -> Mapping[str, Column]: ...

    def batches(self, names: Sequence[str], rows: int) -> Iterator[Sequence[Cells]]: ...


def table_file(table: Table, kind: str) -> EmbeddingFile:
    entries: list[ArrayEntry] = []
    notes: list[str] = []
    vectors = {name for name, column in table.columns.items() if column.kind == "vectors"}
    texts = {name: _recognized(table, name) for name, column in table.columns.items() if column.kind == "text"}
    for name in table.columns:
        text = texts.get(name)
        if name in vectors:
            entries += _vector_entries(table, name, _first_dim(table, name))
        elif text is not None and text.problem:
            entries.append(ArrayEntry.ignored(name, text.problem))
        elif text is not None:
            entries += _vector_entries(table, name, text.dim)
    kinds = {name: column.kind[0] for name, column in table.columns.items() if column.kind in ("float", "integer")}
    series, left = choose_columns(kinds)
    # In a table with columns of vectors, numbered columns are often other values of the items.
    is_default = not entries
    for found in series:
        entries += _series_entries(table, found, is_default=is_default)
        if len(table.columns) > len(found.columns):
            notes.append(f"{table.path}: {found.described}, are read as one matrix")
    taken = {*vectors, *(name for name in texts if texts[name] is not None)}
    taken |= {column for found in series for column in found.columns}
    entries += [_value_entry(table, name, left.get(name, "")) for name in table.columns if name not in taken]
    return EmbeddingFile.at(table.path, kind, entries, notes=notes)


def _recognized(table: Table, name: str) -> TextVectors | None:
    batch = next(iter(table.batches([name], _FIRST_ROWS)), None)
    return None if batch is None else recognize_vectors(batch[0].texts())


def _first_dim(table: Table, name: str) -> int:
    """Return the length of the first non-empty vector, or 0."""
    for (cells,) in table.batches([name], _FIRST_ROWS if table.rows <= _FIRST_ROWS else _MASK_ROWS):
        if dim := cells.dim():
            return dim
    return 0


def _vector_entries(table: Table, name: str, dim: int) -> list[ArrayEntry]:
    if dim == 0:
        return [ArrayEntry.ignored(name, "every row is null or empty, so every item is absent")]
    dtype, where = table.columns[name].dtype or "<f4", f"{table.path}: {name!r}"
    step = rows_per_chunk(dim * np.dtype(dtype).itemsize)

    def chunks() -> Iterator[Array]:
        start = 0
        for (cells,) in table.batches([name], step):
            yield cells.dense(dim, dtype, where, start)
            start += len(cells)

    def mask() -> Array:
        return ~np.concatenate([cells.absent() for (cells,) in table.batches([name], _MASK_ROWS)])

    entries = [_streamed(name, (table.rows, dim), dtype, chunks)]
    if f"present.{name}" not in table.columns and any(
        cells.absent().any() for (cells,) in table.batches([name], _MASK_ROWS)
    ):
        entries.append(ArrayEntry(f"present.{name}", (table.rows,), "|b1", unreadable, mask))
    return entries


def dense_rows(lengths_c: Array, flat: Array, dim: int, dtype: str, where: str, start: int) -> Array:
    """Return (c, dim) vectors; vectors of length 0 are absent and become NaN."""
    wrong_c = (lengths_c > 0) & (lengths_c != dim)
    if wrong_c.any():
        row = int(wrong_c.argmax())
        raise ShapeError(
            f"{where} row {start + row} has {lengths_c[row]} entries, but the first row has {dim}; every row needs the "
            "same dim (one pooled vector per item)"
        )
    dense_cD = np.full((len(lengths_c), dim), np.nan if np.dtype(dtype).kind == "f" else 0, dtype)
    dense_cD[lengths_c > 0] = flat.reshape(-1, dim)
    return dense_cD


def _series_entries(table: Table, series: Series, *, is_default: bool) -> list[ArrayEntry]:
    names = list(series.columns)
    dtype = max((table.columns[name].dtype or "<f4" for name in names), key=lambda dtype: np.dtype(dtype).itemsize)
    step = rows_per_chunk(len(names) * np.dtype(dtype).itemsize)

    def chunks() -> Iterator[Array]:
        for batch in table.batches(names, step):
            yield np.ascontiguousarray(np.stack([cells.numbers(dtype) for cells in batch], 1))

    def blank(columns: Sequence[str]) -> Iterator[Array]:
        for batch in table.batches(columns, _MASK_ROWS):
            yield np.all([np.isnan(cells.numbers("<f8")) for cells in batch], axis=0)

    def mask() -> Array:
        return ~np.concatenate(list(blank(names)))

    entries = [_streamed(series.name, (table.rows, len(names)), dtype, chunks, is_default=is_default)]
    key = f"present.{series.name}"
    # Check the first column before all columns, which is faster; most tables have no blank cell in it.
    if key not in table.columns and any(blank_c.any() for blank_c in blank(names[:1])) and not mask().all():
        entries.append(ArrayEntry(key, (table.rows,), "|b1", unreadable, mask))
    return entries


def _streamed(
    key: str, shape: tuple[int, int], dtype: str, chunks: Callable[[], Iterator[Array]], *, is_default: bool = True
) -> ArrayEntry:
    def load() -> Array:
        return np.concatenate([np.empty((0, shape[1]), dtype), *chunks()])

    return ArrayEntry(key, shape, dtype, partial(StreamRows, chunks, shape, dtype), load, "", is_default)


def _value_entry(table: Table, name: str, left: str) -> ArrayEntry:
    column = table.columns[name]
    dtype = {"bool": "|b1", "text": "<U1", "integer": "<i8"}.get(column.kind)
    if dtype is None:
        return ArrayEntry.ignored(name, left or column.what)

    def load() -> Array:
        parts: list[Array] = []
        for (cells,) in table.batches([name], _VALUE_ROWS):
            values_c = cells.values(fill=name in _MAY_BE_NULL)
            if (
                name == "names" and column.kind == "text"
            ):  # keep empty names, which `values` would replace by -1 if all names are integers
                values_c = np.array(["" if text is None else text for text in cells.texts()], np.str_)
            if values_c is None:
                raise DataError(f"{table.path}: {name!r} has empty cells; give every row a value")
            parts.append(values_c)
        if len({part.dtype.kind for part in parts}) > 1:
            parts = [part.astype(np.str_) for part in parts]
        return np.concatenate(parts) if parts else np.empty(0, dtype)

    return ArrayEntry(name, (table.rows,), dtype, unreadable, load)
