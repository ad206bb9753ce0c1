"""Read the cells of a column of a parquet or Arrow file in batches; in ascending order, each batch is read once."""

import mmap
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unialign._checks import one_line
from unialign._optional import optional_module
from unialign.errors import MediaError, UniAlignError
from unialign.media._arrow_sizes import compressed_batches

__all__ = ["TableColumn", "TableFile", "TableValue"]

# Read few rows at once, since cells with media are large.
_PARQUET_ROWS = 32
_ARROW_MAGIC = b"ARROW1"


class TableFile(NamedTuple):
    """Path in a cell, relative to the folder of the table."""

    path: str


# Bytes of a file, a text, numbers, a path, or nothing.
TableValue = bytes | str | NDArray[Any] | TableFile | None
# Function that yields (first row, cells) of batches, beginning with the batch that contains the given row.
_Batches = Callable[[int], Iterator[tuple[int, Any]]]


class TableColumn:
    """Column of a table file; `limit` is the maximum size of a cell in bytes."""

    def __init__(self, stream: BinaryIO, handle: int, size: int, column: str, limit: int) -> None:
        self._limit = limit
        stream.seek(0)
        head = stream.read(len(_ARROW_MAGIC))
        stream.seek(0)
        try:
            if head.startswith(b"PAR1"):
                self.rows, self._batches = _parquet(stream, column, limit)
            else:
                self.rows, self._batches = _arrow(handle, size, column, limit, is_file=head == _ARROW_MAGIC)
        except UniAlignError:
            raise
        except Exception as error:  # malicious input may raise any exception in the parser
            raise MediaError("undecodable", f"not a readable parquet or Arrow file ({one_line(error)})") from None
        self._start, self._cells = 0, ()
        self._next: Iterator[tuple[int, Any]] = iter(())
        self._last: tuple[int, TableValue] | None = None

    def cell(self, row: int) -> TableValue:
        if self._last is not None and self._last[0] == row:
            return self._last[1]
        try:
            if not self._start <= row < self._start + len(self._cells):
                self._read(row)
            value = _value(self._cells[row - self._start])
        except UniAlignError:
            raise
        except Exception as error:  # malicious input may raise any exception in the parser
            raise MediaError("undecodable", f"the column cannot be read ({one_line(error)})") from None
        size = value.nbytes if isinstance(value, np.ndarray) else len(value) if isinstance(value, bytes) else 0
        if size > self._limit:
            raise _too_large(size, self._limit)
        self._last = row, value
        return value

    def _read(self, row: int) -> None:
        if row >= self.rows:
            raise MediaError("wrong-shape", f"the table has {self.rows} rows")
        following = self._start + len(self._cells)
        # Continue with the next batch only if it contains the row; otherwise, batches can be skipped.
        self._start, self._cells = next(self._next, (0, ())) if row >= following else (0, ())
        if not self._start <= row < self._start + len(self._cells):
            self._next = self._batches(row)
            self._start, self._cells = next(self._next)


def _parquet(stream: BinaryIO, column: str, limit: int) -> tuple[int, _Batches]:
    parquet = optional_module("pyarrow.parquet", "reading parquet files", "parquet")
    # Use a buffered stream; otherwise, the column of a whole row group is read at once.
    file = parquet.ParquetFile(stream, pre_buffer=False, buffer_size=1 << 20)
    names = _path(column, file.schema_arrow)
    metadata = file.metadata
    sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    starts = np.cumsum([0, *sizes])

    def batches(row: int) -> Iterator[tuple[int, Any]]:
        first = int(np.searchsorted(starts, row, side="right")) - 1
        # Read the groups one by one, since the number of rows per batch depends on the size of their cells.
        for group in range(first, len(sizes)):
            start = int(starts[group])
            for batch in file.iter_batches(
                batch_size=_rows_at_once(metadata.row_group(group), names, limit),
                row_groups=[group],
                columns=[".".join(names)],
                use_threads=False,
            ):
                if start + len(batch) > row:
                    yield start, _cells(batch, names)
                start += len(batch)

    return int(file.metadata.num_rows), batches


def _rows_at_once(group: Any, names: list[str], limit: int) -> int:
    """Return the number of rows per batch, since a page may be much larger after decompression."""
    columns = (group.column(i) for i in range(group.num_columns))
    size = sum(own.total_uncompressed_size for own in columns if own.path_in_schema.split(".")[: len(names)] == names)
    if size > limit * group.num_rows:
        raise _too_large(size // max(1, group.num_rows), limit)
    return int(max(1, min(_PARQUET_ROWS, limit * group.num_rows // max(1, size))))


def _too_large(size: int, limit: int) -> MediaError:
    return MediaError("too-large", f"{size:,} bytes, expected at most {limit:,}")


def _arrow(handle: int, size: int, column: str, limit: int, *, is_file: bool) -> tuple[int, _Batches]:
    pa = optional_module("pyarrow", "reading Arrow files", "parquet")
    ipc = optional_module("pyarrow.ipc", "reading Arrow files", "parquet")
    # Map the file, since the table may be a single batch that does not fit into memory.
    data = pa.py_buffer(mmap.mmap(handle, size, access=mmap.ACCESS_READ))

    # Check the sizes first, since a batch is decompressed as a whole.
    for rows_of_batch, bytes_of_batch in compressed_batches(data, is_file=is_file):
        if bytes_of_batch > limit * max(1, rows_of_batch):
            raise _too_large(bytes_of_batch // max(1, rows_of_batch), limit)

    def all_batches() -> Iterator[Any]:
        if not is_file:
            yield from ipc.open_stream(pa.BufferReader(data))
            return
        file = ipc.open_file(pa.BufferReader(data))
        yield from map(file.get_batch, range(file.num_record_batches))

    opened = (ipc.open_file if is_file else ipc.open_stream)(pa.BufferReader(data))
    names = _path(column, opened.schema)
    rows = sum(map(len, all_batches()))

    def batches(row: int) -> Iterator[tuple[int, Any]]:
        start = 0
        for batch in all_batches():
            if start + len(batch) > row:
                yield start, _cells(batch, names)
            start += len(batch)

    return rows, batches


def _path(column: str, schema: Any) -> list[str]:
    """Return the path of a column; a field of a struct column is given as COLUMN.FIELD."""
    outer, _, inner = column.partition(".")
    if schema.names.count(column) == 1:
        return [column]
    if schema.names.count(outer) == 1 and inner:
        return [outer, inner]
    listed = ", ".join(map(repr, schema.names[:10]))
    raise MediaError("missing-file", f"the table has no column {column!r:.80}; it has {listed}")


def _cells(batch: Any, names: list[str]) -> Any:
    cells = batch.column(names[0])
    # Damaged offsets would read outside the file.
    cells.validate(full=True)
    if len(names) > 1:
        compute = optional_module("pyarrow.compute", "reading tables", "parquet")
        cells = compute.struct_field(cells, names[1])
    return cells


def _value(scalar: Any) -> TableValue:
    value = getattr(scalar, "values", None)
    # `values` of a dictionary or list scalar is an array; that of a struct is a method.
    if value is not None and hasattr(value, "to_numpy"):
        return np.asarray(value.to_numpy(zero_copy_only=False))
    value = scalar.as_py()
    if isinstance(value, dict) and {"bytes", "path"} & value.keys():
        # The library `datasets` writes media as {"bytes", "path"}.
        if value.get("bytes") is not None:
            value = value["bytes"]
        else:
            value = TableFile(str(value["path"])) if value.get("path") else None
    if isinstance(value, int | float):
        return np.array([value])
    if value is None or isinstance(value, bytes | str | TableFile):
        return value
    raise MediaError("wrong-shape", f"expected bytes, a string or numbers, got a value of type {type(value).__name__}")
