"""Scan all rows of a modality once for invalid rows, norms, checksums, constant columns and sampled rows.

Shapes: `N` rows, `D` dimension, `c` rows of a chunk, `k` rows kept, `d` columns that have been constant so far.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unialign.diagnostics._duplicates import checksum_weights, row_checksums
from unialign.readers import MatchedRows, Modality

Array = NDArray[Any]
OnBytes = Callable[[int, int], None]

# Squared norms in float32 outside this range are recomputed in float64, since squares of entries below 1e-19 underflow.
_MIN_SQUARE, _MAX_SQUARE = 1e-24, 1e36
# Maximum number of row numbers listed for each kind of invalid row.
_LISTED = 5


@dataclass(frozen=True)
class InvalidRows:
    count: int
    first: tuple[int, ...]


@dataclass(frozen=True)
class ModalityScan:
    usable_N: NDArray[np.bool_]  # present rows that are finite and have a direction
    norms_N: NDArray[np.floating[Any]]  # norm of each usable row, NaN elsewhere; float64 if the rows are float64
    checksums_N: NDArray[np.uint64]  # checksum of each row, which is the same for equal rows (-0 is treated as 0)
    invalid: dict[str, InvalidRows]  # "nan", "inf", "zero", "tiny" (no direction left after rounding) -> present rows
    blank: int  # number of invalid rows with only NaN or only 0, as is common for absent items
    constant_columns: tuple[int, ...]  # columns that hold the same value in all usable rows
    largest: float  # largest absolute entry of a usable row
    kept_kD: NDArray[np.float64]  # requested rows; arbitrary if not usable
    fingerprint: str  # SHA-256 of the checksums of the present rows, the dim and the precision


def scan_modality(modality: Modality, rows_k: NDArray[np.int64], *, on_bytes: OnBytes | None = None) -> ModalityScan:
    """Read a modality in the order of its file, and return the results in the order of the items. `on_bytes` is called
    with the number of bytes read so far and the total.
    """
    order_N = modality.source.order_N
    if order_N is None:
        return _scan(modality, rows_k, on_bytes)
    has_N = order_N >= 0
    rows = modality.rows.rows if isinstance(modality.rows, MatchedRows) else modality.rows
    present_F = np.zeros(rows.shape[0], np.bool_)
    present_F[order_N[modality.present_N & has_N]] = True
    item_F = np.full(rows.shape[0], -1, np.int64)
    item_F[order_N[has_N][::-1]] = np.flatnonzero(has_N)[::-1]  # the first item of each row
    file_k = np.unique(order_N[rows_k][has_N[rows_k]])
    found = _scan(replace(modality, rows=rows, present_N=present_F), file_k, on_bytes)
    kept_kD = np.zeros((len(rows_k), rows.shape[1]))
    kept_kD[has_N[rows_k]] = found.kept_kD[np.searchsorted(file_k, order_N[rows_k][has_N[rows_k]])]
    return replace(
        found,
        usable_N=has_N & modality.present_N & found.usable_N[order_N],
        norms_N=np.where(has_N, found.norms_N[order_N], np.float32(np.nan)),
        checksums_N=np.where(has_N, found.checksums_N[order_N], np.uint64(0)),
        invalid={
            kind: replace(rows, first=tuple(sorted(item_F[list(rows.first)].tolist())) if rows.first else ())
            for kind, rows in found.invalid.items()
        },
        kept_kD=kept_kD,
    )


def _scan(modality: Modality, rows_k: NDArray[np.int64], on_bytes: OnBytes | None) -> ModalityScan:
    (items, dim), present_N = modality.rows.shape, modality.present_N
    usable_N = present_N.copy()
    norms_N: NDArray[Any] = np.full(
        items, np.nan, np.float64 if modality.rows.dtype.endswith(("f8", "float64")) else np.float32
    )
    checksums_N = np.zeros(items, np.uint64)
    invalid: dict[str, list[int]] = {"nan": [], "inf": [], "zero": [], "tiny": []}
    kept_kD = np.zeros((len(rows_k), dim))
    blank, largest, start, dtype = 0, 0.0, 0, ""
    columns = _ConstantColumns(dim)
    for chunk_cD in modality.rows.chunks():
        stop, dtype = start + len(chunk_cD), str(chunk_cD.dtype)
        torch.from_numpy(chunk_cD).add_(0.0)  # turns -0 into 0, since equal rows must have equal checksums
        checksums_N[start:stop] = row_checksums(chunk_cD, checksum_weights(dim * chunk_cD.dtype.itemsize))
        with np.errstate(all="ignore"):
            squared_c = np.einsum("ij,ij->i", chunk_cD, chunk_cD)
            norms_N[start:stop] = np.sqrt(squared_c).astype(np.float32)
        doubtful_c = present_N[start:stop] & ~((squared_c > _MIN_SQUARE) & (squared_c < _MAX_SQUARE))
        for i in np.flatnonzero(doubtful_c):
            norms_N[start + i], kind, is_blank = _examine(chunk_cD[i])
            if kind:
                invalid[kind].append(start + int(i))
                usable_N[start + i] = False
                blank += is_blank
        usable_c = usable_N[start:stop]
        columns.update(chunk_cD, usable_c)
        low, high = np.searchsorted(rows_k, [start, stop])
        kept_kD[low:high] = chunk_cD[rows_k[low:high] - start]
        if not usable_c.all():
            chunk_cD[~usable_c] = 0.0
        largest = max(largest, float(torch.from_numpy(chunk_cD).abs_().max()))
        start = stop
        if on_bytes is not None:
            on_bytes(stop * chunk_cD[0].nbytes, items * chunk_cD[0].nbytes)
    norms_N[~usable_N] = np.nan
    hasher = hashlib.sha256(f"{dim} {dtype}".encode())
    hasher.update(np.packbits(present_N).tobytes())
    hasher.update(np.where(present_N, checksums_N, np.uint64(0)).astype("<u8").tobytes())
    return ModalityScan(
        usable_N=usable_N,
        norms_N=norms_N,
        checksums_N=checksums_N,
        invalid={kind: InvalidRows(len(rows), tuple(rows[:_LISTED])) for kind, rows in invalid.items()},
        blank=blank,
        constant_columns=columns.result(),
        largest=largest,
        kept_kD=kept_kD,
        fingerprint=hasher.hexdigest(),
    )


def _examine(row_D: Array) -> tuple[float, str, bool]:
    """Return the norm of a row, its fault ("" if none) and whether its entries are all NaN or all 0."""
    if not np.isfinite(row_D).all():
        nan_D = np.isnan(row_D)
        return np.nan, "nan" if nan_D.any() else "inf", bool(nan_D.all())
    largest = float(np.abs(row_D).max())
    if largest == 0:
        return np.nan, "zero", True
    limits = np.finfo(row_D.dtype)
    # Same limit as in `has_direction`; below the limit, rounding to denormals has destroyed the direction.
    if largest < limits.tiny / limits.eps:
        return np.nan, "tiny", False
    norm = largest * float(np.linalg.norm(row_D.astype(np.float64) / largest))
    least, most = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
    # Norms are rounded to float32, except norms of float64 rows outside the range of float32.
    if row_D.dtype == np.float32 or least < norm < most:
        return float(np.float32(min(norm, most))), "", False
    return norm, "", False


class _ConstantColumns:
    """Remove columns that are not constant; usually none are left after the first chunk, which makes updates cheap."""

    def __init__(self, dim: int) -> None:
        self.columns = np.arange(dim)
        self.value_d: Array | None = None
        self.rows = 0

    def update(self, chunk_cD: Array, usable_c: NDArray[np.bool_]) -> None:
        if not len(self.columns) or not usable_c.any():
            return
        self.rows += int(usable_c.sum())
        if self.value_d is None:
            self.value_d = chunk_cD[int(usable_c.argmax()), self.columns].copy()
        chunk_cd = chunk_cD if len(self.columns) == chunk_cD.shape[1] else chunk_cD[:, self.columns]
        constant_d = ((chunk_cd == self.value_d) | ~usable_c[:, None]).all(0)
        self.columns, self.value_d = self.columns[constant_d], self.value_d[constant_d]

    def result(self) -> tuple[int, ...]:
        return tuple(self.columns.tolist()) if self.rows > 1 else ()
