"""Convert quantized vectors to floats: int8 and uint8 to their values, bools and packed sign bits to +1 and -1.

Shapes: `N` rows, `W` stored bytes of a row, `c` rows of a chunk, `n` requested rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.readers._entry import ArrayEntry
from unialign.readers._rows import Rows, to_float

__all__ = ["bits_entry", "is_quantized", "quantized_entry"]

Array = NDArray[Any]

_SAMPLED_ROWS = 256
# Packed sign bits are nearly uniform bytes, so half of the bytes differ from their median by more than _FAR.
# Scalar-quantized values rarely differ this much from their median.
_FAR, _FAR_FRACTION = 64, 0.3


def is_quantized(entry: ArrayEntry) -> bool:
    return len(entry.shape) == 2 and 0 not in entry.shape and entry.dtype.lstrip("|<>=") in ("i1", "u1", "b1", *_NAMES)


_NAMES = ("int8", "uint8", "bool")


def quantized_entry(entry: ArrayEntry) -> tuple[ArrayEntry, str]:
    kind, (items, width) = entry.kind, entry.shape
    if kind == "b":
        return _ValueEntry(
            entry, scale=2.0, shift=-1.0
        ).entry, f"bools of shape ({items}, {width}) are read as +1 and -1"
    sample_cW = next(islice(entry.rows().chunks(), 1))[:_SAMPLED_ROWS]
    if _is_packed(sample_cW):
        what = f"bytes of shape ({items}, {width}) are read as {8 * width} packed sign bits, +1 and -1"
        return bits_entry(entry), what
    return _ValueEntry(entry).entry, f"{np.dtype(entry.dtype).name} codes are read as numbers"


def bits_entry(entry: ArrayEntry) -> ArrayEntry:
    """Unpack (N, W) bytes into (N, 8 W) signs; int8 is uint8 - 128, as in sentence-transformers."""
    shift = 128 if entry.kind == "i" else 0
    shape = (entry.shape[0], 8 * entry.shape[1])
    return replace(
        entry,
        shape=shape,
        dtype="<f4",
        rows=lambda: _BitRows(entry.rows(), shape, shift),
        load=lambda: _unpack(np.asarray(entry.load()), shift),
    )


def _is_packed(sample_cW: Array) -> bool:
    return bool((np.abs(sample_cW - np.median(sample_cW)) > _FAR).mean() > _FAR_FRACTION)


def _unpack(codes_cW: Array, shift: int) -> Array:
    bytes_cW = (codes_cW.astype(np.int16) + shift).astype(np.uint8)
    return np.unpackbits(bytes_cW, axis=1).astype(np.float32) * 2 - 1


class _BitRows:
    def __init__(self, rows: Rows, shape: tuple[int, int], shift: int) -> None:
        self.rows, self.shape, self.shift, self.dtype = rows, shape, shift, "float32"

    def chunks(self) -> Iterator[Array]:
        for codes_cW in self.rows.chunks():
            yield _unpack(codes_cW, self.shift)

    def take(self, rows_n: Sequence[int]) -> Array:
        return _unpack(self.rows.take(rows_n), self.shift)


class _ValueEntry:
    """Convert codes to `scale * code + shift`."""

    def __init__(self, entry: ArrayEntry, *, scale: float = 1.0, shift: float = 0.0) -> None:
        self.stored, self.scale, self.shift = entry, scale, shift
        self.entry = replace(entry, dtype="<f4", rows=self._rows, load=self._load)

    def _rows(self) -> Rows:
        return _ScaledRows(self.stored.rows(), self.scale, self.shift)

    def _load(self) -> Array:
        codes_NW = np.asarray(self.stored.load())
        return to_float(codes_NW, str(codes_NW.dtype)) * np.float32(self.scale) + np.float32(self.shift)


class _ScaledRows:
    def __init__(self, rows: Rows, scale: float, shift: float) -> None:
        self.rows, self.shape, self.dtype = rows, rows.shape, "float32"
        self.scale, self.shift = np.float32(scale), np.float32(shift)

    def chunks(self) -> Iterator[Array]:
        for chunk_cW in self.rows.chunks():
            yield chunk_cW * self.scale + self.shift

    def take(self, rows_n: Sequence[int]) -> Array:
        return self.rows.take(rows_n) * self.scale + self.shift
