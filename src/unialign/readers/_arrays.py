"""The rows of one array, read in pieces of bounded memory: a region of a file, a stream, or an array in memory.

Plain reads into reused buffers, no memory maps: the pages of a map count as the process's own memory.

Shapes: `N` rows, `D` width, `c` rows of one piece, `n` wanted rows.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from unialign.errors import DataError
from unialign.io import open_regular

__all__ = ["ArrayRows", "Block", "FileRows", "MatchedRows", "Rows", "StreamRows", "working"]

Array = NDArray[Any]

# Fits the second-level cache of a core, where the scan goes over it several times.
CHUNK_BYTES = 1 << 22


class Rows(Protocol):
    """(N, D) rows that can be read once from end to end, and picked."""

    shape: tuple[int, int]
    dtype: str

    def chunks(self) -> Iterator[Array]:
        """Yield (c, D) float32 or float64 pieces in order; each may be changed and is gone when the next one comes."""

    def take(self, rows_n: Sequence[int]) -> Array:
        """Return (n, D) rows; `rows_n` ascending."""


class Block:
    """Where an array lies in a file, and what it holds."""

    def __init__(self, path: Path, offset: int, shape: tuple[int, ...], dtype: str, order: str = "C") -> None:
        self.path, self.offset, self.shape, self.dtype, self.order = path, offset, shape, dtype, order
        self.stored = np.dtype("<u2") if dtype == "bfloat16" else np.dtype(dtype)

    @property
    def bytes(self) -> int:
        return int(np.prod(self.shape, dtype=object)) * self.stored.itemsize

    def load(self) -> Array:
        """The whole array in memory; for ids, labels and masks."""
        with _opened(self.path) as file:
            flat = np.empty(self.bytes // self.stored.itemsize, self.stored)
            _fill(file, self.offset, memoryview(flat.data).cast("B"), self.path)
        return flat.reshape(self.shape, order="F" if self.order == "F" else "C")


class FileRows:
    """Rows of a block of a file. While one piece is worked on, the next one is being read."""

    def __init__(self, block: Block) -> None:
        self.block = block
        self.shape = (block.shape[0], block.shape[1])
        self.dtype = block.dtype

    def chunks(self) -> Iterator[Array]:
        rows, width = self.shape
        step = max(1, CHUNK_BYTES // max(1, width * self.block.stored.itemsize))
        starts = range(0, rows, step)
        buffers = [np.empty(min(step, rows) * width, self.block.stored) for _ in range(2)]
        with _opened(self.block.path) as file, ThreadPoolExecutor(1) as reader:

            def read(i: int) -> Array:
                return self._read(file, starts[i], min(rows, starts[i] + step), buffers[i % 2])

            waiting = [reader.submit(read, i) for i in range(min(1, len(starts)))]
            for i in range(len(starts)):
                raw_cD = waiting.pop().result()
                if i + 1 < len(starts):
                    waiting.append(reader.submit(read, i + 1))
                yield working(raw_cD, self.dtype)

    def take(self, rows_n: Sequence[int]) -> Array:
        buffer = np.empty(self.shape[1], self.block.stored)
        with _opened(self.block.path) as file:
            found = [working(self._read(file, row, row + 1, buffer), self.dtype).copy() for row in rows_n]
        return np.concatenate(found) if found else np.empty((0, self.shape[1]), np.float32)

    def _read(self, file: BinaryIO, start: int, stop: int, buffer: Array) -> Array:
        (rows, width), size, count = self.shape, self.block.stored.itemsize, stop - start
        part = buffer[: count * width]
        if self.block.order == "C":
            _fill(file, self.block.offset + start * width * size, memoryview(part.data).cast("B"), self.block.path)
            return part.reshape(count, width)
        # Columns lie one behind the other: a piece of each.
        part_Dc = part.reshape(width, count)
        for d in range(width):
            place = self.block.offset + (d * rows + start) * size
            _fill(file, place, memoryview(part_Dc[d].data).cast("B"), self.block.path)
        return np.ascontiguousarray(part_Dc.T)


class StreamRows:
    """Rows that can only be read from the beginning, such as those of a compressed archive."""

    def __init__(self, pieces: Callable[[], Iterator[Array]], shape: tuple[int, int], dtype: str) -> None:
        self._pieces, self.shape, self.dtype = pieces, shape, dtype

    def chunks(self) -> Iterator[Array]:
        done = 0
        for raw_cD in self._pieces():
            done += len(raw_cD)
            yield working(raw_cD, self.dtype)
        if done != self.shape[0]:
            raise DataError(f"an array ended after {done} of {self.shape[0]} rows; the file is damaged, write it again")

    def take(self, rows_n: Sequence[int]) -> Array:
        wanted, found, start = np.asarray(rows_n, dtype=np.int64), [], 0
        for chunk_cD in self.chunks():
            inside = wanted[(wanted >= start) & (wanted < start + len(chunk_cD))] - start
            found.append(chunk_cD[inside].copy())
            start += len(chunk_cD)
            if not len(wanted) or start > wanted[-1]:
                break
        return np.concatenate(found) if found else np.empty((0, self.shape[1]), np.float32)


class ArrayRows:
    """Rows of an array that the caller holds; never changed."""

    def __init__(self, array_ND: Array) -> None:
        self.array_ND = array_ND
        self.shape = (int(array_ND.shape[0]), int(array_ND.shape[1]))
        self.dtype = str(array_ND.dtype)

    def chunks(self) -> Iterator[Array]:
        step = max(1, CHUNK_BYTES // max(1, self.shape[1] * self.array_ND.dtype.itemsize))
        for start in range(0, self.shape[0], step):
            yield working(np.array(self.array_ND[start : start + step], order="C"), self.dtype)

    def take(self, rows_n: Sequence[int]) -> Array:
        return working(self.array_ND[np.asarray(rows_n, dtype=np.int64)].copy(), self.dtype)


class MatchedRows:
    """Rows that are read in the order of their file and picked by item: item i is row `order_N[i]`."""

    def __init__(self, rows: Rows, order_N: NDArray[np.int64]) -> None:
        self.rows, self.order_N = rows, order_N
        self.shape, self.dtype = rows.shape, rows.dtype

    def chunks(self) -> Iterator[Array]:
        return self.rows.chunks()

    def take(self, rows_n: Sequence[int]) -> Array:
        own_n, back_n = np.unique(self.order_N[np.asarray(rows_n, dtype=np.int64)], return_inverse=True)
        return self.rows.take(own_n.tolist())[back_n.reshape(-1)]


def working(raw: Array, dtype: str) -> Array:
    """Native float32, or float64 where the array is; bfloat16 is the upper half of a float32."""
    if dtype == "bfloat16":
        return (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return raw.astype(np.float64 if raw.dtype.itemsize > 4 else np.float32, copy=False)


def _opened(path: Path) -> BinaryIO:
    try:
        return open_regular(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}; check the path") from None


def _fill(file: BinaryIO, offset: int, view: memoryview, path: Path) -> None:
    """Read exactly as much as fits, whatever other reads of the same file do meanwhile."""
    done = 0
    while done < len(view):
        try:
            count = os.preadv(file.fileno(), [view[done:]], offset + done) if _PREADV else _seek(file, offset, view)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}; check the disk") from None
        if count == 0:
            raise DataError(f"{path} ended in the middle of an array; it was cut off or is being written, try again")
        done += count


_PREADV = hasattr(os, "preadv")


def _seek(file: BinaryIO, offset: int, view: memoryview) -> int:
    file.seek(offset)
    data = file.read(len(view))
    view[: len(data)] = data
    return len(data) if len(data) == len(view) else 0
