"""Measure how the neighborhoods of two versions of an embedding differ, on a sample of items.

Cosines between rows of the same version do not change under rotations, so they distinguish a rotated copy from another
model.

Shapes: `n` sampled items, `D` dimension, `h` items of one half, `R` resamples.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign.diagnostics._drift_scan import unit_rows
from unialign.diagnostics._estimate import Estimate, estimate_mean
from unialign.metrics import resample_weights

Array = NDArray[Any]

NEIGHBORS = 10
# Cosines of equal rows differ by rounding, so neighbors whose cosines differ by less are tied.
_TIE = 1e-6
# Sample size: large enough for a Procrustes fit of a half to up to this many columns, limited by the (n, n) cosines.
_MIN_SAMPLE, _MAX_SAMPLE = 2048, 4096
# Largest sample that a user may request; about six matrices of (n, n) float64 cosines are in memory at once.
MAX_REQUESTED = 8192
# Number of rows per column that a Procrustes fit needs; with fewer, its residual on other rows is mostly noise.
_ROWS_PER_COLUMN = 2


@dataclass(frozen=True)
class SampleDrift:
    """Agreement of two versions on a sample; NaN or None if undefined.

    Attributes:
        overlap: fraction of the 10 nearest rows within the new version that are among the 10 nearest within the old
            one, with its interval.
        stale_overlap: the same for new rows as queries and old rows as candidates, as in a search of an old index with
            new queries; None if the widths differ.
        cosine_agreement: correlation, over pairs of items, of their cosines in the old and the new version; 1 for
            rotations.
        centered_agreement: the same after subtraction of the mean row of each version.
        centered_cosine: median cosine of counterparts after subtraction of the mean rows; NaN if the widths differ.
        random_cosine: mean cosine of an old and a new row of different items; NaN if the widths differ.
        rotated_cosine: median cosine of counterparts after the best orthogonal map, fitted to one half of the sample
            and applied to the other half (orthogonal Procrustes, Schönemann 1966); NaN with too few rows.
        residual: |new - map(old)| / |new| over the held-out half, of centered unit rows; NaN with too few rows.
        precision: how the new rows were rounded: "float16", "bfloat16", "integers", "int8 with a scale per row",
            "256 levels per column", "signs", or "" if the rows were not rounded.
    """

    items: int
    overlap: Estimate | None
    stale_overlap: Estimate | None
    cosine_agreement: float
    centered_agreement: float
    centered_cosine: float
    random_cosine: float
    rotated_cosine: float
    residual: float
    precision: str


def drift_sample_size(dims: tuple[int, int], requested: int | None) -> int:
    if requested is not None:
        return requested
    wanted = 2 * _ROWS_PER_COLUMN * max(dims)
    return wanted if _MIN_SAMPLE < wanted <= _MAX_SAMPLE else _MIN_SAMPLE


def measure_sample(old_nD: Array, new_nD: Array, *, resamples: int, seed: int) -> SampleDrift:
    n, same_width = len(old_nD), old_nD.shape[1] == new_nD.shape[1]
    a_nD, b_nD = unit_rows(old_nD)[0], unit_rows(new_nD)[0]
    centered_a, centered_b = (unit_rows(z - z.mean(0))[0] for z in (a_nD, b_nD))
    old_nn, new_nn = a_nD @ a_nD.T, b_nD @ b_nD.T
    found: dict[str, Any] = {
        "overlap": None,
        "stale_overlap": None,
        "cosine_agreement": _agreement(old_nn, new_nn),
        "centered_agreement": _agreement(centered_a @ centered_a.T, centered_b @ centered_b.T),
        "centered_cosine": np.nan,
        "random_cosine": np.nan,
    }
    if n > 2 * NEIGHBORS:
        weights_Rn = resample_weights(n, resamples=resamples, seed=seed)
        found["overlap"] = _overlap(old_nn, new_nn, weights_Rn)
        if same_width:
            found["stale_overlap"] = _overlap(old_nn, b_nD @ a_nD.T, weights_Rn)
    if same_width:
        found["centered_cosine"] = float(np.median((centered_a * centered_b).sum(1)))
        cross_nn = a_nD @ b_nD.T
        if n > 1:
            found["random_cosine"] = float((cross_nn.sum() - np.trace(cross_nn)) / (n * (n - 1)))
    rotated, residual = _procrustes(a_nD, b_nD, seed=seed)
    precision = find_precision(old_nD, new_nD) if same_width else ""
    return SampleDrift(items=n, rotated_cosine=rotated, residual=residual, precision=precision, **found)


def _overlap(old_nn: Array, scores_nn: Array, weights_Rn: Tensor) -> Estimate:
    """Return the overlap of the 10 nearest rows. Candidates whose old cosine ties with the tenth also count, so that
    copies of a row do not lower the overlap.
    """
    n = len(old_nn)
    old, scores = torch.from_numpy(old_nn.copy()), torch.from_numpy(scores_nn.copy())
    for matrix in (old, scores):
        matrix.fill_diagonal_(-torch.inf)
    tenth_n = old.topk(NEIGHBORS, 1).values[:, -1:]
    picked = scores.topk(NEIGHBORS, 1).indices
    agreeing_n = (old.gather(1, picked) >= tenth_n - _TIE).double().mean(1)
    assert len(agreeing_n) == n
    return estimate_mean(agreeing_n, weights_Rn)


def _agreement(old_nn: Array, new_nn: Array) -> float:
    """Return the correlation of the cosines of different items; NaN if a version has only one value."""
    n = len(old_nn)
    if n < 3:
        return float("nan")
    rows, columns = np.triu_indices(n, 1)
    x, y = old_nn[rows, columns], new_nn[rows, columns]
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale > 1e-12 * len(x) else float("nan")


def _procrustes(a_nD: Array, b_nD: Array, *, seed: int) -> tuple[float, float]:
    """Return the median cosine and the relative residual on held-out rows after the best orthogonal map of a to b."""
    half = len(a_nD) // 2
    if half < _ROWS_PER_COLUMN * max(a_nD.shape[1], b_nD.shape[1]):
        return float("nan"), float("nan")
    order_n = np.random.default_rng(seed).permutation(len(a_nD))
    fit_h, held_h = order_n[:half], order_n[half:]
    a_nD, b_nD = a_nD - a_nD[fit_h].mean(0), b_nD - b_nD[fit_h].mean(0)
    u, _, vt = np.linalg.svd(a_nD[fit_h].T @ b_nD[fit_h], full_matrices=False)
    mapped, target = a_nD[held_h] @ (u @ vt), b_nD[held_h]
    cosine = float(np.median((unit_rows(mapped)[0] * unit_rows(target)[0]).sum(1)))
    norm = float(np.linalg.norm(target))
    return cosine, float(np.linalg.norm(mapped - target)) / norm if norm > 0 else float("nan")


def find_precision(old_nD: Array, new_nD: Array) -> str:
    candidates = (old_nD, unit_rows(old_nD)[0])
    with np.errstate(over="ignore"):
        new_f = new_nD.astype(np.float32)
    # Entries outside the range of float32 do not equal any rounded entry.
    kept_nD = np.isfinite(new_f) & ((new_f != 0) | (new_nD == 0))
    for name, rounding in _ROUNDINGS.items():
        # If the old rows were already rounded, rounding does not change them, so equality is not informative.
        for rows in candidates:
            with np.errstate(over="ignore"):
                rows_f = rows.astype(np.float32)
            if ((rounding(rows_f) == new_f) & kept_nD).mean() > 0.99 and (rows_f != new_f).mean() > 0.1:
                return name
    return next((name for name, holds in _CODES.items() if holds(new_nD) and not holds(old_nD)), "")


def _are_signs(x_nD: Array) -> bool:
    sizes_nD = np.abs(x_nD)
    largest = sizes_nD.max()
    return bool((sizes_nD >= (1 - 1e-6) * largest).all())


def _are_integers(x_nD: Array) -> bool:
    return bool((x_nD == np.round(x_nD)).all() and np.abs(x_nD).max() <= 255)


def _are_row_codes(x_nD: Array) -> bool:
    """Return whether the entries of each row are multiples of its largest entry / 127."""
    steps_nD = x_nD / np.abs(x_nD).max(1, keepdims=True) * 127
    return x_nD.shape[1] >= 32 and bool((np.abs(steps_nD - np.round(steps_nD)) < 1e-3).mean() > 0.99)


def _are_column_codes(x_nD: Array) -> bool:
    """Return whether every column has at most 256 values, which is informative only for 1,024 rows or more."""
    return len(x_nD) >= 1024 and max(len(np.unique(column)) for column in x_nD.T[:64]) <= 256


_CODES: dict[str, Callable[[Array], bool]] = {
    "signs": _are_signs,
    "integers": _are_integers,
    "int8 with a scale per row": _are_row_codes,
    "256 levels per column": _are_column_codes,
}


def _to_bfloat16(x: Array) -> Array:
    return np.asarray(torch.from_numpy(x).bfloat16().float().numpy())


def _to_float16(x: Array) -> Array:
    with np.errstate(over="ignore"):
        return x.astype(np.float16).astype(np.float32)


_ROUNDINGS: dict[str, Callable[[Array], Array]] = {"float16": _to_float16, "bfloat16": _to_bfloat16}


def nearest_old(
    probes_qD: Array, blocks: Any, *, limit: float = np.inf
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the nearest old row of each probe, and its cosine; rows with a cosine above `limit` are skipped."""
    best_q, at_q = np.full(len(probes_qD), -np.inf), np.full(len(probes_qD), -1, np.int64)
    for start, rows_bD in blocks:
        rows_bD = np.where(np.isfinite(rows_bD).all(1)[:, None], rows_bD, 0.0)
        cosine_qb = probes_qD @ unit_rows(rows_bD)[0].T
        cosine_qb[cosine_qb > limit] = -np.inf
        top_q = cosine_qb.argmax(1)
        value_q = cosine_qb[np.arange(len(probes_qD)), top_q]
        better_q = value_q > best_q
        best_q[better_q], at_q[better_q] = value_q[better_q], start + top_q[better_q]
    return at_q, best_q
