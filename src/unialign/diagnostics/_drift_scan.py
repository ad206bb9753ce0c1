"""Compare every row of one version of an embedding with its counterpart in the other version.

Shapes: `P` items with both rows, `D` dimension, `d` shared columns, `b` rows of a block, `k` rows kept.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.diagnostics._drift_pairs import MatchedItems, paired_blocks
from unialign.readers import Modality

Array = NDArray[Any]

_RANGE = np.finfo(np.float64)


@dataclass(frozen=True)
class RowDrift:
    """Differences of all rows.

    Attributes:
        valid_P: True if both rows are finite and not zero.
        error_P: 1 - cosine of the two rows, in [0, 2]; NaN where not valid. If the widths differ, the cosine of the
            first d columns, where d is the smaller width.
        ratio_P: norm of the new row, divided by the norm of the old row, within the range of float64; NaN where not
            valid.
        equal_P: True if the two rows are equal in every entry.
        lost_P, gained_P: True if only the old, or only the new row is finite and not zero.
        invalid_old, invalid_new: number of rows that are not finite or zero in each version.
        kept_old, kept_new: (k, D) float64 rows of the requested items.
        fingerprints: SHA-256 of the rows of the old and the new version.
    """

    valid_P: NDArray[np.bool_]
    error_P: NDArray[np.float32]
    ratio_P: NDArray[np.float64]
    equal_P: NDArray[np.bool_]
    lost_P: NDArray[np.bool_]
    gained_P: NDArray[np.bool_]
    invalid_old: int
    invalid_new: int
    kept_old: Array
    kept_new: Array
    fingerprints: tuple[str, str]


def scan_rows(
    old: Modality,
    new: Modality,
    matched: MatchedItems,
    kept_k: NDArray[np.int64],
    *,
    on_rows: Callable[[int, int], None] | None = None,
) -> RowDrift:
    count = len(matched)
    error_P, ratio_P = np.full(count, np.nan, np.float32), np.full(count, np.nan)
    valid_P, equal_P, lost_P, gained_P = (np.zeros(count, np.bool_) for _ in range(4))
    kept = [np.empty((len(kept_k), version.rows.shape[1])) for version in (old, new)]
    hashes, invalid = [hashlib.sha256(), hashlib.sha256()], [0, 0]
    for start, old_bD, new_bD in paired_blocks(old, new, matched):
        stop = start + len(old_bD)
        low, high = np.searchsorted(kept_k, [start, stop])
        usable = []
        for i, rows_bD in enumerate((old_bD, new_bD)):
            hashes[i].update(np.ascontiguousarray(rows_bD).data)
            kept[i][low:high] = rows_bD[kept_k[low:high] - start]
            usable.append(are_valid(rows_bD))
            invalid[i] += int((~usable[i]).sum())
        valid_b = usable[0] & usable[1]
        valid_P[start:stop] = valid_b
        lost_P[start:stop], gained_P[start:stop] = usable[0] & ~usable[1], usable[1] & ~usable[0]
        equal_P[start:stop] = valid_b & _equal(old_bD, new_bD)
        error_P[start:stop][valid_b], ratio_P[start:stop][valid_b] = _differences(old_bD[valid_b], new_bD[valid_b])
        if on_rows is not None:
            on_rows(stop, count)
    fingerprints = (hashes[0].hexdigest(), hashes[1].hexdigest())
    return RowDrift(
        valid_P, error_P, ratio_P, equal_P, lost_P, gained_P, invalid[0], invalid[1], kept[0], kept[1], fingerprints
    )


def are_valid(rows_bD: Array) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(rows_bD).all(1) & (rows_bD != 0).any(1))


def _equal(old_bD: Array, new_bD: Array) -> NDArray[np.bool_]:
    if old_bD.shape != new_bD.shape:
        return np.zeros(len(old_bD), np.bool_)
    return np.asarray((old_bD == new_bD).all(1))


def _differences(old_bD: Array, new_bD: Array) -> tuple[Array, Array]:
    """Return 1 - cosine of the shared columns, with an absolute error of about 1e-15, and the ratio of the norms."""
    shared = min(old_bD.shape[1], new_bD.shape[1])
    old_bD, old_b = _scaled(old_bD)
    new_bD, new_b = _scaled(new_bD)
    u_bd, v_bd = old_bD[:, :shared], new_bD[:, :shared]
    dot_b, u_b, v_b = (np.einsum("ij,ij->i", x, y) for x, y in ((u_bd, v_bd), (u_bd, u_bd), (v_bd, v_bd)))
    # A prefix that consists of zeros has no direction.
    has_b = (u_b > 0) & (v_b > 0)
    error_b = np.ones(len(dot_b))
    error_b[has_b] = np.clip(1 - dot_b[has_b] / np.sqrt(u_b[has_b] * v_b[has_b]), 0.0, 2.0)
    if u_bd.shape == old_bD.shape == new_bD.shape:
        error_b[(old_bD == new_bD).all(1)] = 0.0
    norms = [np.sqrt(np.einsum("ij,ij->i", x, x)) for x in (old_bD, new_bD)]
    with np.errstate(over="ignore", under="ignore"):
        ratio_b = norms[1] / norms[0] * (new_b / old_b)
    return error_b, np.clip(ratio_b, _RANGE.smallest_subnormal, _RANGE.max)


def _scaled(rows_bD: Array) -> tuple[Array, Array]:
    """Return rows whose squares neither overflow nor underflow, and the factors that were divided out."""
    if rows_bD.dtype == np.float32:  # squares of float32 numbers are within the range of float64
        return rows_bD.astype(np.float64), np.ones(len(rows_bD))
    largest_b = np.abs(rows_bD).max(1)
    return rows_bD / largest_b[:, None], largest_b


def unit_rows(rows_bD: Array) -> tuple[Array, Array]:
    """Return unit rows and norms; zero rows stay zero."""
    rows_bD = rows_bD.astype(np.float64)
    largest_b1 = np.abs(rows_bD).max(1, keepdims=True, initial=0.0)
    scaled_bD = rows_bD / np.where(largest_b1 > 0, largest_b1, 1.0)
    norm_b1 = np.linalg.norm(scaled_bD, axis=1, keepdims=True)
    return scaled_bD / np.where(norm_b1 > 0, norm_b1, 1.0), (norm_b1 * largest_b1)[:, 0]
