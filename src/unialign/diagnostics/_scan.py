"""One pass over all rows: what is broken, how long rows are, which are copies of each other, which columns never move.

Shapes: `N` rows, `D` width, `c` rows of one piece, `W` words of a row, `n` sampled rows.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unialign.diagnostics._sources import Modality

__all__ = ["Scan", "scan"]

Array = NDArray[Any]

# Squared norms in float32 outside this range are taken again, in float64 and scaled; the squares of entries below 1e-19
# have left the range of float32.
_LOW, _HIGH = 1e-24, 1e36


@dataclass(frozen=True)
class Broken:
    """Rows of one kind of damage."""

    count: int
    first: tuple[int, ...]


@dataclass(frozen=True)
class Scan:
    """What the pass over a modality found.

    Attributes:
        usable_N: present, finite, and long enough to have a direction.
        norms_N: float32 length of each usable row, NaN elsewhere.
        hashes_N: a 64-bit checksum of each row; equal rows have equal ones (-0 counts as 0).
        broken: "nan", "inf", "zero", "short" -> rows.
        blank: broken rows in which every entry is NaN, or every entry is 0: they look like marks of absence.
        still: columns that have one value in all usable rows.
        largest: the largest entry of a usable row.
        sample_nD: float64 rows asked for; those that are not usable are meaningless.
        fingerprint: sha256 over the checksums of the present rows, the width and the precision.
    """

    usable_N: NDArray[np.bool_]
    norms_N: NDArray[np.float32]
    hashes_N: NDArray[np.uint64]
    broken: dict[str, Broken]
    blank: int
    still: tuple[int, ...]
    largest: float
    sample_nD: NDArray[np.float64]
    fingerprint: str


_SHOWN = 5
_KINDS = ("nan", "inf", "zero", "short")


def scan(modality: Modality, rows_n: NDArray[np.int64], *, on_bytes: Callable[[int], None]) -> Scan:
    """Read a modality from end to end once.

    Args:
        rows_n: ascending rows to keep.
        on_bytes: told how many bytes have been read.
    """
    (items, width), present_N = modality.rows.shape, modality.present_N
    usable_N = present_N.copy()
    norms_N = np.full(items, np.nan, np.float32)
    hashes_N = np.zeros(items, np.uint64)
    rows: dict[str, list[int]] = {kind: [] for kind in _KINDS}
    sample_nD = np.zeros((len(rows_n), width))
    blank, largest, start = 0, 0.0, 0
    weights: tuple[Array, Array] | None = None
    columns = _StillColumns(width)
    dtype = ""
    for chunk_cD in modality.rows.chunks():
        stop = start + len(chunk_cD)
        torch.from_numpy(chunk_cD).add_(0.0)  # -0 becomes 0: they are equal and must have equal checksums
        if weights is None:
            dtype = str(chunk_cD.dtype)
            weights = _weights(width * chunk_cD.dtype.itemsize)
        hashes_N[start:stop] = _checksums(chunk_cD, weights)
        with np.errstate(all="ignore"):
            squared_c = np.einsum("ij,ij->i", chunk_cD, chunk_cD)
            norms_N[start:stop] = np.sqrt(squared_c)
        doubtful_c = present_N[start:stop] & ~((squared_c > _LOW) & (squared_c < _HIGH))
        for i in np.flatnonzero(doubtful_c):
            norms_N[start + i], kind, empty = _examined(chunk_cD[i])
            if kind:
                rows[kind].append(start + int(i))
                usable_N[start + i] = False
                blank += empty
        usable_c = usable_N[start:stop]
        columns.look(chunk_cD, usable_c)
        low, high = np.searchsorted(rows_n, [start, stop])
        sample_nD[low:high] = chunk_cD[rows_n[low:high] - start]
        if not usable_c.all():
            chunk_cD[~usable_c] = 0.0
        largest = max(largest, float(torch.from_numpy(chunk_cD).abs_().max()))
        start = stop
        on_bytes(chunk_cD.nbytes)
    norms_N[~usable_N] = np.nan
    hasher = hashlib.sha256(f"{width} {dtype}".encode())
    hasher.update(np.packbits(present_N).tobytes())
    hasher.update(np.where(present_N, hashes_N, np.uint64(0)).astype("<u8").tobytes())
    return Scan(
        usable_N=usable_N,
        norms_N=norms_N,
        hashes_N=hashes_N,
        broken={kind: Broken(len(found), tuple(found[:_SHOWN])) for kind, found in rows.items()},
        blank=blank,
        still=columns.still(),
        largest=largest,
        sample_nD=sample_nD,
        fingerprint=hasher.hexdigest(),
    )


def _examined(row_D: Array) -> tuple[float, str, bool]:
    """Norm of a row whose plain sum of squares is not to be trusted; what is wrong with it; and whether it is blank."""
    if not np.isfinite(row_D).all():
        nan_D = np.isnan(row_D)
        return np.nan, "nan" if nan_D.any() else "inf", bool(nan_D.all())
    largest = float(np.abs(row_D).max())
    if largest == 0:
        return np.nan, "zero", True
    limits = np.finfo(row_D.dtype)
    # As `unialign.batch.usable_rows`: below it, denormal numbers have rounded the direction away.
    if largest < limits.tiny / limits.eps:
        return np.nan, "short", False
    norm = largest * float(np.linalg.norm(row_D.astype(np.float64) / largest))
    return min(norm, float(np.finfo(np.float32).max)), "", False


class _StillColumns:
    """Columns that have had one value so far; soon none are left, and looking costs nothing."""

    def __init__(self, width: int) -> None:
        self.left = np.arange(width)
        self.value_d: Array | None = None
        self.rows = 0

    def look(self, chunk_cD: Array, usable_c: NDArray[np.bool_]) -> None:
        if not len(self.left) or not usable_c.any():
            return
        self.rows += int(usable_c.sum())
        if self.value_d is None:
            self.value_d = chunk_cD[int(usable_c.argmax()), self.left].copy()
        seen_cd = chunk_cD if len(self.left) == chunk_cD.shape[1] else chunk_cD[:, self.left]
        same_d = ((seen_cd == self.value_d) | ~usable_c[:, None]).all(0)
        self.left, self.value_d = self.left[same_d], self.value_d[same_d]

    def still(self) -> tuple[int, ...]:
        return tuple(self.left.tolist()) if self.rows > 1 else ()


def _weights(row_bytes: int) -> tuple[Array, Array]:
    """Two odd 64-bit numbers a word of the row, the same for ever (splitmix64), so that fingerprints last."""
    words = -(-row_bytes // 8)
    with np.errstate(over="ignore"):
        state = np.arange(1, 2 * words + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = (state ^ (state >> np.uint64(31))) | np.uint64(1)
    return state[:words], state[words:]


def _checksums(chunk_cD: Array, weights: tuple[Array, Array]) -> NDArray[np.uint64]:
    """sum_w (u_w a_w + (u_w >> 32) b_w) mod 2^64 over the 64-bit words u of a row.

    Multilinear hashing (Carter & Wegman 1979). The second sum gives the upper halves weights of their own: a difference
    there alone is a multiple of 2^32, and for numbers that were float16 once of 2^45, whose product with `a` has few
    bits left.
    """
    if chunk_cD.nbytes // len(chunk_cD) % 8:
        chunk_cD = np.concatenate([chunk_cD, np.zeros((len(chunk_cD), 1), chunk_cD.dtype)], 1)
    words_cW = np.ascontiguousarray(chunk_cD).view(np.uint64)
    with np.errstate(over="ignore"):
        lower_c = np.einsum("ij,j->i", words_cW, weights[0])
        upper_c = np.einsum("ij,j->i", words_cW >> np.uint64(32), weights[1])
        sums_c: NDArray[np.uint64] = lower_c + upper_c
    return sums_c
