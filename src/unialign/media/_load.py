"""Load the media of cells from files below the roots of an item table."""

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from unialign.media._cell import Cell
from unialign.media._decoding import Decoding
from unialign.media._kinds import Kind, Media
from unialign.media._limits import MediaLimits
from unialign.media._open_files import OpenFiles

__all__ = ["FileMark", "file_mark", "load_cell", "open_cell"]


class FileMark(NamedTuple):
    """Size in bytes and modification time in nanoseconds of a file; a changed file almost always has another mark."""

    size: int
    mtime_ns: int


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
        limits: limits on the size; by default those of `MediaLimits()`.
        decoding: options of decoding; by default those of `Decoding()`.
        files: array and table files that stay open between calls; by default each call opens its file.

    Returns:
        The decoded value, or None if the cell has no content of this kind: a blank text, or a video without sound that
        is read as audio.

    Raises:
        MediaError: the cell is broken; the error has a code.
        DataError: the root folder does not exist.
        OSError: the machine or file system failed, with a number in `TRANSIENT`; the cell may be readable later.
        MissingDependencyError: an optional package is not installed.
    """
    raise NotImplementedError


def open_cell(cell: Cell, *, roots: Sequence[Path], limits: MediaLimits | None = None) -> BinaryIO:
    """Open the encoded bytes of a cell, for example to compute their checksum; see `load_cell` for errors.

    The bytes of an array cell are those of its row as float32.
    """
    raise NotImplementedError


def file_mark(cell: Cell, *, roots: Sequence[Path]) -> FileMark | None:
    """Return the mark of the file of a cell, or None for a value; see `load_cell` for errors."""
    raise NotImplementedError
