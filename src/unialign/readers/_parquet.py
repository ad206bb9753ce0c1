"""Columns of a parquet file: lists of floats are modalities, a null row is an absent one; pyarrow is an extra.

A file without such columns whose columns are plain floats is one modality, as pandas writes a matrix.
"""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.errors import DataError, MissingDependencyError, ShapeError
from unialign.readers._arrays import CHUNK_BYTES, Rows, StreamRows
from unialign.readers._types import Entry

__all__ = ["parquet_entries"]

_FLOATS = {"halffloat": "<f2", "float": "<f4", "double": "<f8"}


def parquet_entries(path: Path) -> dict[str, Entry]:
    """The file's columns; MissingDependencyError without pyarrow."""
    opened = _open(path)
    fields = {field.name: field.type for field in opened.schema_arrow}
    rows = int(opened.metadata.num_rows)
    entries: dict[str, Entry] = {}
    lists = {name: str(kind.value_type) for name, kind in fields.items() if _is_list(kind)}
    vectors = {name: value for name, value in lists.items() if value in _FLOATS}
    for name, value in vectors.items():
        entries[name] = _vector(path, name, rows, _FLOATS[value])
        mask = f"present.{name}"
        if mask not in fields and _has_nulls(path, name):
            entries[mask] = _mask(path, name, rows)
    scalars = [name for name, kind in fields.items() if str(kind) in _FLOATS]
    if not vectors and scalars:
        entries[""] = _matrix(path, scalars, rows, max((_FLOATS[str(fields[n])] for n in scalars), key=_size))
    for name, kind in fields.items():
        if name in entries or (not vectors and name in scalars):
            continue
        if _is_list(kind):
            entries[name] = Entry.ignored(name, f"a list of {kind.value_type}")
        else:
            entries[name] = _column(path, name, rows, str(kind))
    return entries


def _size(dtype: str) -> int:
    return np.dtype(dtype).itemsize


def _open(path: Path) -> Any:
    try:
        parquet = import_module("pyarrow.parquet")
    except ImportError:
        raise MissingDependencyError(
            f"{path}: reading parquet needs pyarrow; pip install 'unialign[parquet]'"
        ) from None
    try:
        # A buffered stream: otherwise a column of a row group, which may be all rows, is read at once.
        return parquet.ParquetFile(path, memory_map=False, pre_buffer=False, buffer_size=1 << 20)
    except Exception as error:  # hostile input: the reader may raise anything
        raise DataError(f"{path} is no readable parquet file ({_in_one_line(error)}); write it again") from None


def _is_list(kind: Any) -> bool:
    return hasattr(kind, "value_type") and str(kind).startswith(("list", "large_list", "fixed_size_list"))


def _has_nulls(path: Path, name: str) -> bool:
    """The row groups' statistics do not say it of lists, so look."""
    return any(batch.column(0).null_count for batch in _batches(path, [name], 1 << 12))


def _batches(path: Path, columns: list[str], step: int) -> Iterator[Any]:
    try:
        yield from _open(path).iter_batches(batch_size=step, columns=columns, use_threads=False)
    except Exception as error:  # hostile input: the reader may raise anything
        why = _in_one_line(error)
        raise DataError(f"{path}: {columns[0]!r} cannot be read ({why}); write the file again") from None


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _vector(path: Path, name: str, rows: int, dtype: str) -> Entry:
    width = _width(path, name)
    step = max(1, CHUNK_BYTES // max(1, width * _size(dtype)))

    def pieces() -> Iterator[NDArray[Any]]:
        start = 0
        for batch in _batches(path, [name], step):
            yield _dense(batch.column(0), width, dtype, path, name, start)
            start += len(batch)

    def opened() -> Rows:
        return StreamRows(pieces, (rows, width), dtype)

    def load() -> NDArray[Any]:
        return np.concatenate(list(pieces()))

    return Entry(name, (rows, width), dtype, opened, load)


def _width(path: Path, name: str) -> int:
    """The length of the first list."""
    for batch in _batches(path, [name], 64):
        for value in batch.column(0):
            if value.is_valid:
                return len(value)
    return 0


def _dense(column: Any, width: int, dtype: str, path: Path, name: str, start: int) -> NDArray[Any]:
    """(c, width) of a list column; null rows are NaN, which the presence mask covers."""
    valid_c = np.array(column.is_valid().to_numpy(zero_copy_only=False), dtype=bool)
    lengths_c = _lengths(column)
    wrong_c = valid_c & (lengths_c != width)
    if wrong_c.any():
        row = int(wrong_c.argmax())
        raise ShapeError(
            f"{path}: {name!r} row {start + row} has {lengths_c[row]} entries, the first row has {width}; every row "
            "needs the same width (one pooled vector an item)"
        )
    values = column.drop_null().flatten().to_numpy(zero_copy_only=False).astype(dtype, copy=False)
    dense_cW = np.full((len(column), width), np.nan, dtype)
    dense_cW[valid_c] = values.reshape(-1, width)
    return dense_cW


def _lengths(column: Any) -> NDArray[np.int64]:
    lengths: NDArray[np.int64] = (
        import_module("pyarrow.compute")
        .list_value_length(column)
        .fill_null(0)
        .to_numpy(zero_copy_only=False)
        .astype(np.int64)
    )
    return lengths


def _matrix(path: Path, columns: list[str], rows: int, dtype: str) -> Entry:
    step = max(1, CHUNK_BYTES // (len(columns) * _size(dtype)))

    def pieces() -> Iterator[NDArray[Any]]:
        for batch in _batches(path, columns, step):
            # A null number becomes NaN, and the scan says which rows have one.
            parts = [batch.column(i).to_numpy(zero_copy_only=False).astype(dtype) for i in range(len(columns))]
            yield np.ascontiguousarray(np.stack(parts, 1))

    def opened() -> Rows:
        return StreamRows(pieces, (rows, len(columns)), dtype)

    def load() -> NDArray[Any]:
        return np.concatenate(list(pieces()))

    return Entry("", (rows, len(columns)), dtype, opened, load)


def _mask(path: Path, name: str, rows: int) -> Entry:
    def load() -> NDArray[Any]:
        parts = [b.column(0).is_valid().to_numpy(zero_copy_only=False) for b in _batches(path, [name], 1 << 14)]
        return np.concatenate(parts).astype(np.bool_)

    return Entry(f"present.{name}", (rows,), "|b1", _no_rows, load)


def _column(path: Path, name: str, rows: int, kind: str) -> Entry:
    def load() -> NDArray[Any]:
        parts = []
        for batch in _batches(path, [name], 1 << 16):
            if batch.column(0).null_count:
                raise DataError(f"{path}: {name!r} has empty cells; give every row a value")
            values = batch.column(0).to_numpy(zero_copy_only=False)
            parts.append(values.astype(np.str_) if values.dtype == object else values)
        return np.concatenate(parts)

    dtype = {"bool": "|b1", "string": "<U1", "large_string": "<U1"}.get(kind, "<i8" if "int" in kind else "")
    if dtype == "":
        return Entry.ignored(name, f"a column of {kind}")
    return Entry(name, (rows,), dtype, _no_rows, load)


def _no_rows() -> Rows:
    raise DataError("this column is no matrix")
