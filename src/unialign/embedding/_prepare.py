"""Read, decode and prepare cells. This module imports no torch."""

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.embedding._augment import augmented, augmented_decoding
from unialign.embedding._thumbnail import thumbnail
from unialign.errors import MediaError
from unialign.io import CHUNK_BYTES
from unialign.media import (
    TRANSIENT,
    Cell,
    Decoding,
    Kind,
    MediaLimits,
    OpenFiles,
    file_cells,
    file_mark,
    load_cell,
    open_cell,
)

__all__ = ["ColumnWork", "PreparedCell", "ReadFailure", "prepare_cell", "read_cell"]

# Waiting times before a read is repeated after a failure of the machine or the file system.
RETRY_SECONDS = (1.0, 4.0, 16.0)
# Number of attempts to read a file that changes meanwhile.
_READS = 2


@dataclass(frozen=True)
class ColumnWork:
    """How to prepare the cells of a column; picklable.

    Attributes:
        prepare: `Encoder.prepare`.
        thumbnails: largest side of thumbnails, or None.
        hash: whether to compute the sha256 of the bytes of each cell.
        retry_seconds: waiting times before a failed read is repeated.
    """

    media: Kind
    prepare: Callable[[Any], dict[str, NDArray[Any]]]
    decoding: Decoding
    limits: MediaLimits
    roots: tuple[Path, ...]
    thumbnails: int | None = None
    hash: bool = False
    retry_seconds: Sequence[float] = RETRY_SECONDS


@dataclass
class PreparedCell:
    """The outcome for one cell.

    Attributes:
        arrays: result of `Encoder.prepare`; None for a broken or blank cell, and after the batch was encoded.
        code: code of a broken cell, or None.
        is_blank: whether the cell has no content of its kind, such as a video without sound.
        marks: root and path -> size and modification time of each file that was read.
    """

    arrays: dict[str, NDArray[Any]] | None = None
    code: str | None = None
    detail: str = ""
    is_blank: bool = False
    thumbnail: bytes | None = None
    marks: dict[str, tuple[int, int]] = field(default_factory=dict)
    sha256: str | None = None


class ReadFailure(Exception):
    """Reading failed because of the machine or the file system, even after retries."""


def prepare_cell(
    work: ColumnWork,
    cell: Cell,
    *,
    files: OpenFiles | None = None,
    on_stage: Callable[[bool], None] = lambda busy: None,
    seed: int | None = None,
) -> PreparedCell:
    """Read, decode and prepare a cell. `on_stage` is called with True before the cell is read, and with False before a
    wait. With a seed, the media are augmented at random; see `augmented`.
    """
    waits = iter(work.retry_seconds)
    while True:
        on_stage(True)
        try:
            return _attempt(work, cell, files, seed)
        except MediaError as error:
            return PreparedCell(code=error.code, detail=error.detail)
        except MemoryError:
            reason = "not enough memory"
        except OSError as error:
            if error.errno not in TRANSIENT:
                raise
            reason = error.strerror or str(error)
        on_stage(False)
        wait = next(waits, None)
        if wait is None:
            raise ReadFailure(reason)
        time.sleep(wait)


def read_cell(work: ColumnWork, cell: Cell, *, files: OpenFiles | None = None) -> Iterator[None]:
    """Read the bytes of a cell, and yield before each step. Errors are left to `prepare_cell`."""
    yield
    with (
        contextlib.suppress(MediaError, OSError, MemoryError),
        open_cell(cell, roots=work.roots, limits=work.limits, files=files) as file,
    ):
        yield
        while file.read(CHUNK_BYTES):
            yield


def _attempt(work: ColumnWork, cell: Cell, files: OpenFiles | None, seed: int | None) -> PreparedCell:
    decoding = work.decoding if seed is None else augmented_decoding(work.decoding, work.media, seed)
    for _ in range(_READS):
        read = file_cells(cell, roots=work.roots, limits=work.limits, files=files)
        marks = _marks(work, read)
        found = PreparedCell(marks=marks)
        try:
            media = load_cell(cell, work.media, roots=work.roots, limits=work.limits, decoding=decoding, files=files)
            if work.hash and cell.file is not None:
                found.sha256 = _sha256(work, cell, files)
        except MediaError:
            if _marks(work, read) == marks:
                raise
            continue
        if _marks(work, read) == marks:
            break
    else:
        raise MediaError("changed", "the file changed while it was read")
    if media is None:
        found.is_blank = True
        return found
    if seed is not None:
        media = augmented(media, seed)
    found.thumbnail = thumbnail(media, work.media, work.thumbnails)
    found.arrays = {name: np.ascontiguousarray(array) for name, array in work.prepare(media).items()}
    return found


def _marks(work: ColumnWork, cells: Sequence[Cell]) -> dict[str, tuple[int, int]]:
    marks = ((cell, file_mark(cell, roots=work.roots)) for cell in cells)
    return {f"{cell.root}/{cell.file}": (mark.size, mark.mtime_ns) for cell, mark in marks if mark is not None}


def _sha256(work: ColumnWork, cell: Cell, files: OpenFiles | None) -> str:
    hasher = hashlib.sha256()
    with open_cell(cell, roots=work.roots, limits=work.limits, files=files) as file:
        while chunk := file.read(CHUNK_BYTES):
            hasher.update(chunk)
    return hasher.hexdigest()
