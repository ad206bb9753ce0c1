"""Read .parquet files with pyarrow: columns of float lists are modalities, null rows are absent.

A file with only plain float columns, as written by pandas, is read as one matrix.
"""

from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign._checks import one_line
from unialign.errors import DataError, MissingDependencyError, ShapeError
from unialign.readers._entry import ArrayEntry, EmbeddingFile, repeated, unreadable
from unialign.readers._rows import StreamRows, rows_per_chunk

__all__ = ["ParquetReader"]

Array = NDArray[Any]

_FLOATS = {"halffloat": "<f2", "float": "<f4", "double": "<f8"}


class ParquetReader:
    """Reader of the columns of Apache Parquet files, one row group at a time."""

    name = "parquet"
    suffixes = (".parquet",)

    def can_read(self, path: Path, head: bytes) -> bool:
        return head.startswith(b"PAR1")

    def open(self, path: Path) -> EmbeddingFile:
        return EmbeddingFile.at(path, self.name, _Table(path).entries())


class _Table:
    """Open Parquet file: its schema, and batches of its columns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        opened = _open(path)
        for name in repeated(opened.schema_arrow.names):
            raise DataError(f"{path} holds several columns called {name!r}; rename them")
        self.fields = {field.name: field.type for field in opened.schema_arrow}
        self.rows = int(opened.metadata.num_rows)

    def entries(self) -> Iterator[ArrayEntry]:
        lists = {name: str(kind.value_type) for name, kind in self.fields.items() if _is_list(kind)}
        vectors = {name: _FLOATS[value] for name, value in lists.items() if value in _FLOATS}
        scalars = {name: _FLOATS[str(kind)] for name, kind in self.fields.items() if str(kind) in _FLOATS}
        for name, dtype in vectors.items():
            dim = self._dim(name)
            if dim is None and self.rows:
                yield ArrayEntry.ignored(name, "every row is null, so that every item is absent")
                continue
            yield self._vectors(name, dtype, dim or 0)
            if f"present.{name}" not in self.fields and self._has_nulls(name):
                yield self._mask(name)
        if not vectors and scalars:
            yield self._matrix(list(scalars), max(scalars.values(), key=lambda dtype: np.dtype(dtype).itemsize))
        for name, kind in self.fields.items():
            if name in lists and name not in vectors:
                yield ArrayEntry.ignored(name, f"a list of {kind.value_type}")
            elif name not in vectors and (vectors or name not in scalars):
                yield self._column(name, str(kind))

    def batches(self, columns: list[str], rows: int) -> Iterator[Any]:
        try:
            yield from _open(self.path).iter_batches(batch_size=rows, columns=columns, use_threads=False)
        except Exception as error:  # malicious input may raise any exception in the parser
            raise DataError(
                f"{self.path}: {columns[0]!r} cannot be read ({one_line(error)}); write the file again"
            ) from None

    def _dim(self, name: str) -> int | None:
        """Return the length of the first list; None if every row is null."""
        for batch in self.batches([name], 64):
            for value in batch.column(0):
                if value.is_valid:
                    return len(value)
        return None

    def _has_nulls(self, name: str) -> bool:
        # Row group statistics do not count null lists.
        return any(batch.column(0).null_count for batch in self.batches([name], 1 << 12))

    def _streamed(self, key: str, dim: int, dtype: str, chunks: Callable[[], Iterator[Array]]) -> ArrayEntry:
        shape = (self.rows, dim)
        rows = partial(StreamRows, chunks, shape, dtype)
        return ArrayEntry(key, shape, dtype, rows, lambda: np.concatenate([np.empty((0, dim), dtype), *chunks()]))

    def _mask(self, name: str) -> ArrayEntry:
        def load() -> Array:
            parts = [b.column(0).is_valid().to_numpy(zero_copy_only=False) for b in self.batches([name], 1 << 14)]
            return np.concatenate(parts).astype(np.bool_)

        return ArrayEntry(f"present.{name}", (self.rows,), "|b1", unreadable, load)

    def _vectors(self, name: str, dtype: str, dim: int) -> ArrayEntry:
        step = rows_per_chunk(dim * np.dtype(dtype).itemsize)

        def chunks() -> Iterator[Array]:
            start = 0
            for batch in self.batches([name], step):
                yield _dense(batch.column(0), dim, dtype, f"{self.path}: {name!r}", start)
                start += len(batch)

        return self._streamed(name, dim, dtype, chunks)

    def _matrix(self, columns: list[str], dtype: str) -> ArrayEntry:
        step = rows_per_chunk(len(columns) * np.dtype(dtype).itemsize)

        def chunks() -> Iterator[Array]:
            for batch in self.batches(columns, step):
                # A null number becomes NaN.
                parts = [batch.column(i).to_numpy(zero_copy_only=False).astype(dtype) for i in range(len(columns))]
                yield np.ascontiguousarray(np.stack(parts, 1))

        return self._streamed("", len(columns), dtype, chunks)

    def _column(self, name: str, kind: str) -> ArrayEntry:
        def load() -> Array:
            parts = []
            for batch in self.batches([name], 1 << 16):
                if batch.column(0).null_count:
                    raise DataError(f"{self.path}: {name!r} has empty cells; give every row a value")
                values = batch.column(0).to_numpy(zero_copy_only=False)
                parts.append(values.astype(np.str_) if values.dtype == object else values)
            return np.concatenate(parts)

        dtype = {"bool": "|b1", "string": "<U1", "large_string": "<U1"}.get(kind, "<i8" if "int" in kind else "")
        if dtype == "":
            return ArrayEntry.ignored(name, f"a column of {kind}")
        return ArrayEntry(name, (self.rows,), dtype, unreadable, load)


def _dense(column: Any, dim: int, dtype: str, where: str, start: int) -> Array:
    """Convert a list column to (c, dim); null rows are NaN and marked absent by the presence mask."""
    valid_c = np.array(column.is_valid().to_numpy(zero_copy_only=False), dtype=bool)
    lengths = import_module("pyarrow.compute").list_value_length(column).fill_null(0)
    lengths_c = lengths.to_numpy(zero_copy_only=False).astype(np.int64)
    wrong_c = valid_c & (lengths_c != dim)
    if wrong_c.any():
        row = int(wrong_c.argmax())
        raise ShapeError(
            f"{where} row {start + row} has {lengths_c[row]} entries, the first row has {dim}; every row needs the "
            "same dim (one pooled vector an item)"
        )
    values = column.drop_null().flatten().to_numpy(zero_copy_only=False).astype(dtype, copy=False)
    dense_cW = np.full((len(column), dim), np.nan, dtype)
    dense_cW[valid_c] = values.reshape(-1, dim)
    return dense_cW


def _open(path: Path) -> Any:
    try:
        parquet = import_module("pyarrow.parquet")
    except ImportError:
        raise MissingDependencyError(
            f"{path}: reading parquet needs pyarrow; pip install 'unialign[parquet]'"
        ) from None
    try:
        # Use a buffered stream; otherwise the column of a row group, possibly all rows, is read at once.
        return parquet.ParquetFile(path, memory_map=False, pre_buffer=False, buffer_size=1 << 20)
    except Exception as error:  # malicious input may raise any exception in the parser
        raise DataError(f"{path} is not a readable parquet file ({one_line(error)}); write it again") from None


def _is_list(kind: Any) -> bool:
    return hasattr(kind, "value_type") and str(kind).startswith(("list", "large_list", "fixed_size_list"))
