"""Load the media of cells from files below the roots of an item table."""

import contextlib
import io
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from unialign._checks import check_choice
from unialign.errors import DataError, MediaError
from unialign.media._array_cell import open_array, row_of
from unialign.media._cell import Cell
from unialign.media._decode import decode_stream, decode_value
from unialign.media._decoding import Decoding
from unialign.media._files import FileMark, broken_file, locate, mark_of, open_range
from unialign.media._kinds import KINDS, Kind, Media
from unialign.media._limits import MediaLimits
from unialign.media._open_files import OpenFiles, kept_open
from unialign.media._table_column import TableColumn, TableFile, TableValue

__all__ = ["file_cells", "file_mark", "load_cell", "open_cell"]


def load_cell(
    cell: Cell,
    kind: Kind,
    *,
    roots: Sequence[Path],
    limits: MediaLimits | None = None,
    decoding: Decoding | None = None,
    files: OpenFiles | None = None,
) -> Media | None:
    """Read and decode a cell.

    Args:
        cell: the value or reference.
        kind: kind of the modality.
        roots: root folders of the item table.
        limits: limits on the size. Default: `MediaLimits()`.
        decoding: options of decoding. Default: `Decoding()`.
        files: array and table files that stay open between calls. Default: each call opens its file.

    Returns:
        The decoded value, or None if the cell has no content of this kind: a blank text, an empty cell of a table, or a
        video without an audio stream that is read as audio.

    Raises:
        MediaError: the cell is broken; the error has a code.
        DataError: the root folder does not exist, or the cell has neither a value nor a file.
        ConfigError: the kind is unknown, or the value of the cell is not of this kind.
        OSError: the machine or file system failed, with a number in `TRANSIENT`; the cell may be readable later.
        MissingDependencyError: an optional package is not installed.
    """
    check_choice("kind", kind, KINDS)
    limits, decoding = limits or MediaLimits(), decoding or Decoding()
    with _naming(cell.where), contextlib.nullcontext(files) if files else OpenFiles() as opened:
        if cell.path is not None:
            with _stream(cell, roots, limits) as (stream, size):
                return decode_stream(stream, size, kind, limits, decoding, cell.span)
        if cell.array is not None:
            return decode_value(_row(cell, roots, limits, opened), kind, limits, decoding)
        if cell.table is not None:
            found = _table_value(cell, roots, limits, opened)
            if isinstance(found, Cell):
                return load_cell(found, kind, roots=roots, limits=limits, decoding=decoding)
            if isinstance(found, bytes):
                return decode_stream(io.BytesIO(found), len(found), kind, limits, decoding, cell.span)
            return None if found is None else _checked_value(found, kind, limits, decoding)
        return decode_value(cell.value, kind, limits, decoding)


@contextlib.contextmanager
def open_cell(
    cell: Cell, *, roots: Sequence[Path], limits: MediaLimits | None = None, files: OpenFiles | None = None
) -> Iterator[BinaryIO]:
    """Open the encoded bytes of a cell, for example to compute their checksum.

    Texts are encoded as UTF-8 and numbers as little-endian float64; a missing value has no bytes.

    Args:
        cell: the value or reference.
        roots: root folders of the item table.
        limits: limits on the size. Default: `MediaLimits()`.
        files: see `load_cell`.

    Returns:
        A context manager of a stream.

    Raises:
        MediaError: the cell is broken; the error has a code. A change of the file during reading is detected at the
            end.
        DataError: see `load_cell`.
        OSError: see `load_cell`.
    """
    limits = limits or MediaLimits()
    with _naming(cell.where), contextlib.nullcontext(files) if files else OpenFiles() as opened:
        found: TableValue | Cell | str | tuple[float, ...] = cell
        if cell.table is not None:
            found = _table_value(cell, roots, limits, opened)
        elif cell.array is not None:
            found = _row(cell, roots, limits, opened)
        elif cell.path is None:
            found = cell.value
        if isinstance(found, Cell):
            with _stream(found, roots, limits) as (stream, _):
                yield stream
        else:
            yield io.BytesIO(_encoded(found))


def file_cells(
    cell: Cell, *, roots: Sequence[Path], limits: MediaLimits | None = None, files: OpenFiles | None = None
) -> list[Cell]:
    """Return one cell per file that is read for a cell, to be passed to `file_mark`.

    The files are the file of the cell and, for a cell of a table, the file to which the cell refers. A value has no
    files. See `load_cell` for arguments and errors.
    """
    if cell.table is None:
        return [] if cell.file is None else [cell]
    with _naming(cell.where), contextlib.nullcontext(files) if files else OpenFiles() as opened:
        found = _table_value(cell, roots, limits or MediaLimits(), opened)
    return [cell, found] if isinstance(found, Cell) else [cell]


def file_mark(cell: Cell, *, roots: Sequence[Path]) -> FileMark | None:
    """Return the mark of the file of a cell, or None for a value; see `load_cell` for errors.

    For a cell of a table, the mark of the table is returned; see `file_cells` for the files to which the table refers.
    """
    if cell.file is None:
        return None
    path = locate(cell.file, roots, cell.root, cell.where)
    try:
        return mark_of(path)
    except OSError as error:
        raise broken_file(error, cell.where) from None


@contextlib.contextmanager
def _naming(where: str) -> Iterator[None]:
    try:
        yield
    except MediaError as error:
        if error.where:
            raise
        raise MediaError(error.code, error.detail, where) from None


@contextlib.contextmanager
def _stream(cell: Cell, roots: Sequence[Path], limits: MediaLimits) -> Iterator[tuple[BinaryIO, int]]:
    """Yield a stream. After a failed read or a change of the file, this error replaces other errors."""
    assert cell.path is not None
    with open_range(locate(cell.path, roots, cell.root, cell.where), cell.where, limits, cell.at) as opened:
        yield opened


def _row(cell: Cell, roots: Sequence[Path], limits: MediaLimits, files: OpenFiles) -> NDArray[Any]:
    assert cell.array is not None
    if cell.row is None:
        raise DataError(f"{cell.where}: the cell lacks a row")
    path = locate(cell.array, roots, cell.root, cell.where)
    build = partial(_open_array, cell.key)
    with kept_open(files, path, f"array {cell.key}", build, cell.where) as array:
        return row_of(array, cell.row, limits)


def _table_value(cell: Cell, roots: Sequence[Path], limits: MediaLimits, files: OpenFiles) -> TableValue | Cell:
    """Return the value in a table, or the cell of the file to which it refers."""
    assert cell.table is not None
    if cell.row is None or cell.column is None:
        raise DataError(f"{cell.where}: the cell lacks a row or column")
    path = locate(cell.table, roots, cell.root, cell.where)
    build = partial(_open_column, cell.column, limits.bytes)
    with kept_open(files, path, f"column {cell.column} of {limits.bytes}", build, cell.where) as column:
        value: TableValue = column.cell(cell.row)
    if isinstance(value, TableFile):
        return Cell(path=os.path.join(os.path.dirname(cell.table), value.path), span=cell.span, root=cell.root)
    return value


def _open_array(key: str | None, stream: BinaryIO, handle: int, size: int) -> Any:
    return open_array(stream, size, key)


def _open_column(column: str, limit: int, stream: BinaryIO, handle: int, size: int) -> Any:
    return TableColumn(stream, handle, size, column, limit)


def _checked_value(value: Any, kind: Kind, limits: MediaLimits, decoding: Decoding) -> Media | None:
    if isinstance(value, str) != (kind == "text") or kind not in ("text", "array"):
        found = "a text" if isinstance(value, str) else "numbers"
        raise MediaError("undecodable", f"the cell has {found}, expected {kind}")
    return decode_value(value, kind, limits, decoding)


def _encoded(value: Any) -> bytes:
    if value is None or isinstance(value, bytes):
        return value or b""
    return value.encode("utf-8") if isinstance(value, str) else np.asarray(value, "<f8").tobytes()
