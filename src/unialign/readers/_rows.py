"""Read rows in chunks of bounded memory, without memory maps, whose pages would count as memory of the process.

Shapes: `N` rows, `D` dimension, `c` rows of one chunk, `n` requested rows.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from unialign.errors import DataError
from unialign.io import open_regular

__all__ = [
    "ArrayRows",
    "ConcatenatedRows",
    "FileRegion",
    "GatheredRows",
    "MatchedRows",
    "RegionRows",
    "Rows",
    "StreamRows",
    "gathered",
    "rows_per_chunk",
    "to_float",
]

Array = NDArray[Any]

# A chunk should fit into the L2 cache of a core, since a scan reads each chunk several times.
CHUNK_BYTES = 1 << 22
_PREADV = hasattr(os, "preadv")


class Rows(Protocol):
    """(N, D) rows, read in order or selected by index."""

    shape: tuple[int, int]
    dtype: str

    def chunks(self) -> Iterator[Array]:
        """Yield (c, D) float32 or float64 chunks in order.

        The caller may modify a chunk. Reading the next chunk may overwrite the current chunk.
        """

    def take(self, rows_n: Sequence[int]) -> Array:
        """Return the (n, D) rows at ascending indices `rows_n`."""


@dataclass(frozen=True)
class FileRegion:
    """Position and layout of an uncompressed array inside a file.

    Attributes:
        dtype: NumPy dtype string, or "bfloat16".
        order: "C" (row by row) or "F" (column by column).
    """

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: str
    order: Literal["C", "F"] = "C"

    @property
    def stored(self) -> np.dtype[Any]:
        """NumPy dtype for reading the bytes."""
        return np.dtype("<u2") if self.dtype == "bfloat16" else np.dtype(self.dtype)

    @property
    def bytes(self) -> int:
        return int(np.prod(self.shape, dtype=object)) * self.stored.itemsize

    def load(self) -> Array:
        """Read the full array; bfloat16 is converted to float32."""
        flat = np.empty(self.bytes // self.stored.itemsize, self.stored)
        with _opened(self.path) as file:
            _fill(file, self.offset, flat, self.path)
        array = flat.reshape(self.shape, order=self.order)
        return to_float(array, self.dtype) if self.dtype == "bfloat16" else array

    def map(self) -> Array:
        """Memory-map the array read-only; bfloat16, which NumPy does not support, is loaded instead."""
        if self.dtype == "bfloat16" or 0 in self.shape:
            return self.load()
        return np.asarray(np.memmap(self.path, self.stored, "r", self.offset, self.shape, self.order))


class RegionRows:
    """Rows of a file region; the next chunk is prefetched."""

    def __init__(self, region: FileRegion) -> None:
        self.region = region
        self.shape = (region.shape[0], region.shape[1])
        self.dtype = region.dtype

    def chunks(self) -> Iterator[Array]:
        rows, dim = self.shape
        step = rows_per_chunk(dim * self.region.stored.itemsize)
        starts = range(0, rows, step)
        buffers = [np.empty(min(step, rows) * dim, self.region.stored) for _ in range(2)]
        with _opened(self.region.path) as file, ThreadPoolExecutor(1) as reader:

            def read(i: int) -> Array:
                return self._read(file, starts[i], min(rows, starts[i] + step), buffers[i % 2])

            pending = reader.submit(read, 0)
            for i in range(len(starts)):
                raw_cD = pending.result()
                if i + 1 < len(starts):
                    pending = reader.submit(read, i + 1)
                yield to_float(raw_cD, self.dtype)

    def take(self, rows_n: Sequence[int]) -> Array:
        buffer = np.empty(self.shape[1], self.region.stored)
        with _opened(self.region.path) as file:
            found = [to_float(self._read(file, row, row + 1, buffer), self.dtype).copy() for row in rows_n]
        return np.concatenate(found) if found else np.empty((0, self.shape[1]), np.float32)

    def _read(self, file: BinaryIO, start: int, stop: int, buffer: Array) -> Array:
        (rows, dim), size, count = self.shape, self.region.stored.itemsize, stop - start
        part = buffer[: count * dim]
        if self.region.order == "C":
            _fill(file, self.region.offset + start * dim * size, part, self.region.path)
            return part.reshape(count, dim)
        part_Dc = part.reshape(dim, count)
        for d in range(dim):
            _fill(file, self.region.offset + (d * rows + start) * size, part_Dc[d], self.region.path)
        return np.ascontiguousarray(part_Dc.T)


class StreamRows:
    """Rows that can only be read sequentially, such as those of a compressed archive."""

    def __init__(self, chunks: Callable[[], Iterator[Array]], shape: tuple[int, ...], dtype: str) -> None:
        self._chunks, self.shape, self.dtype = chunks, (shape[0], shape[1]), dtype

    def chunks(self) -> Iterator[Array]:
        rows = 0
        for raw_cD in self._chunks():
            rows += len(raw_cD)
            yield to_float(raw_cD, self.dtype)
        if rows != self.shape[0]:
            raise DataError(
                f"an array ends after {rows} of {self.shape[0]} rows, so the file is damaged; write it again"
            )

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
    def __init__(self, array_ND: Array) -> None:
        self.array_ND = array_ND
        self.shape = (int(array_ND.shape[0]), int(array_ND.shape[1]))
        self.dtype = str(array_ND.dtype)

    def chunks(self) -> Iterator[Array]:
        step = rows_per_chunk(self.shape[1] * self.array_ND.dtype.itemsize)
        for start in range(0, self.shape[0], step):
            yield to_float(np.array(self.array_ND[start : start + step], order="C"), self.dtype)

    def take(self, rows_n: Sequence[int]) -> Array:
        return to_float(self.array_ND[np.asarray(rows_n, dtype=np.int64)].copy(), self.dtype)


class MatchedRows:
    """Rows read in file order and selected by item; item i is row `order_N[i]`, or zeros if this number is -1."""

    def __init__(self, rows: Rows, order_N: NDArray[np.int64]) -> None:
        self.rows, self.order_N = rows, order_N
        self.shape, self.dtype = (len(order_N), rows.shape[1]), rows.dtype

    def chunks(self) -> Iterator[Array]:
        return self.rows.chunks()

    def take(self, rows_n: Sequence[int]) -> Array:
        order_n = self.order_N[np.asarray(rows_n, dtype=np.int64)]
        own_n, back_n = np.unique(order_n[order_n >= 0], return_inverse=True)
        found = self.rows.take(own_n.tolist())
        taken = np.zeros((len(order_n), self.shape[1]), found.dtype)
        taken[order_n >= 0] = found[back_n.reshape(-1)]
        return taken


class GatheredRows(MatchedRows):
    def chunks(self) -> Iterator[Array]:
        step = rows_per_chunk(self.shape[1] * 4)
        for start in range(0, self.shape[0], step):
            yield self.take(range(start, min(self.shape[0], start + step)))


class ConcatenatedRows:
    def __init__(self, parts: Sequence[Rows]) -> None:
        self.parts = parts
        self.starts = np.cumsum([0, *(part.shape[0] for part in parts)])
        self.shape, self.dtype = (int(self.starts[-1]), parts[0].shape[1]), parts[0].dtype

    def chunks(self) -> Iterator[Array]:
        for part in self.parts:
            yield from part.chunks()

    def take(self, rows_n: Sequence[int]) -> Array:
        rows = np.asarray(rows_n, dtype=np.int64)
        found = []
        for start, stop, part in zip(self.starts[:-1], self.starts[1:], self.parts, strict=True):
            inside = rows[(rows >= start) & (rows < stop)] - start
            if len(inside):
                found.append(part.take(inside.tolist()))
        return np.concatenate(found) if found else np.empty((0, self.shape[1]), np.float32)


def gathered(array: Array, order_N: NDArray[np.int64]) -> Array:
    """Return `array[order_N]`; where `order_N` is -1, floats are 0, integers -1, strings "" and bools False."""
    taken = array[order_N] if len(array) else np.zeros((len(order_N), *array.shape[1:]), array.dtype)
    missing_N = order_N < 0
    if missing_N.any():
        taken = np.array(taken)
        # Convert unsigned labels to int64, which can represent -1; hashes above the int64 range keep their type.
        if taken.dtype.kind == "u" and taken.ndim == 1 and taken.max() <= np.iinfo(np.int64).max:
            taken = taken.astype(np.int64)
        taken[missing_N] = "" if taken.dtype.kind in "US" else -1 if taken.dtype.kind == "i" else 0
    return taken


def rows_per_chunk(row_bytes: int) -> int:
    return max(1, CHUNK_BYTES // max(1, row_bytes))


def to_float(raw: Array, dtype: str) -> Array:
    """Return float32, or float64 for float64 input; bfloat16 is the upper half of a float32."""
    if dtype == "bfloat16":
        return (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return raw.astype(np.float64 if raw.dtype.itemsize > 4 else np.float32, copy=False)


def _opened(path: Path) -> BinaryIO:
    try:
        return open_regular(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}; check the path") from None


def _fill(file: BinaryIO, offset: int, array: Array, path: Path) -> None:
    view, done = memoryview(array.data).cast("B"), 0
    while done < len(view):
        try:
            if _PREADV:
                count = os.preadv(file.fileno(), [view[done:]], offset + done)
            else:
                file.seek(offset + done)
                count = file.readinto(view[done:])  # type: ignore[attr-defined]
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}; check the disk") from None
        if count == 0:
            raise DataError(
                f"{path} ends in the middle of an array, so it is truncated or still being written; try again"
            )
        done += count
