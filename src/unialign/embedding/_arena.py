"""Memory that the main process shares with a worker.

The memory has no name in the file system, so nothing remains if a process is killed.
"""

import mmap
import os
import struct
import tempfile
import time
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Arena", "Position", "Stage", "StatusBoard", "anonymous_file"]

_ALIGNMENT = 64
_STATUS = struct.Struct("=qqqd")
# Name, dtype, shape and offset of each array of each cell; None for cells without arrays.
Layout = Sequence[Sequence[tuple[str, str, tuple[int, ...], int]] | None]


def anonymous_file(size: int) -> int:
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("unialign")
    else:  # POSIX systems other than Linux
        with tempfile.TemporaryFile() as file:
            handle = os.dup(file.fileno())
    os.ftruncate(handle, size)
    return handle


class Arena:
    """Arrays of one batch in shared memory, which grows as needed."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._map: mmap.mmap | None = None

    def write(self, cells: Sequence[Mapping[str, NDArray[Any]] | None]) -> tuple[Layout, int]:
        layout: list[list[tuple[str, str, tuple[int, ...], int]] | None] = []
        end = 0
        for arrays in cells:
            own: list[tuple[str, str, tuple[int, ...], int]] = []
            for name, array in (arrays or {}).items():
                own.append((name, array.dtype.str, array.shape, end))
                end += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
            layout.append(None if arrays is None else own)
        size = self._resize(end)
        for arrays, places in zip(cells, layout, strict=True):
            for array, (_, dtype, shape, offset) in zip((arrays or {}).values(), places or [], strict=True):
                if array.nbytes:
                    self._view(dtype, shape, offset)[...] = array
        return layout, size

    def read(self, layout: Layout, size: int) -> list[dict[str, NDArray[Any]] | None]:
        """Return views of the arrays, which are valid until the next batch is written."""
        self._remap(size)
        return [
            None
            if places is None
            else {name: self._view(dtype, shape, offset) for name, dtype, shape, offset in places}
            for places in layout
        ]

    def _resize(self, size: int) -> int:
        current = os.fstat(self._handle).st_size
        if size > current:
            os.ftruncate(self._handle, size)
        self._remap(max(size, current))
        return max(size, current)

    def _remap(self, size: int) -> None:
        if size and (self._map is None or len(self._map) < size):
            # Arrays of an earlier batch may still refer to the previous map, which then stays open.
            self._map = mmap.mmap(self._handle, size)

    def _view(self, dtype: str, shape: tuple[int, ...], offset: int) -> NDArray[Any]:
        kind, count = np.dtype(dtype), int(np.prod(shape, dtype=np.int64))
        if not count:
            return np.empty(shape, kind)
        assert self._map is not None
        return np.frombuffer(self._map, kind, count, offset).reshape(shape)


class Stage(IntEnum):
    """Stage of a worker's work on a cell.

    The first cell of a column also imports modules. A cell that is tried alone is read before it is decoded.
    """

    WAITING = 0
    FIRST_CELL = 1
    CELL = 2
    READING = 3


class Position(NamedTuple):
    """The cell that a worker reads or decodes, and the seconds since it began."""

    task: int
    place: int
    stage: Stage
    seconds: float


class StatusBoard:
    """Shared memory with the cell that a worker reads or decodes."""

    SIZE = _STATUS.size

    def __init__(self, handle: int) -> None:
        self._map = mmap.mmap(handle, _STATUS.size)

    def write(self, task: int, place: int, stage: Stage) -> None:
        _STATUS.pack_into(self._map, 0, stage, task, place, time.monotonic())

    def clear(self) -> None:
        self.write(-1, -1, Stage.WAITING)

    def read(self) -> Position | None:
        """Return None if the worker is idle."""
        stage, task, place, since = _STATUS.unpack_from(self._map, 0)
        return Position(task, place, Stage(stage), time.monotonic() - since) if stage else None
