"""Find row offsets: ranges in which row i of one modality matches row i ± 1, 2 or 3 of another.

A lost, repeated or inserted row shifts all later rows of a file. For each offset, the gain of row i of the first
modality is the difference of two cosines: the cosine with row i + offset of the second modality, minus the cosine with
row i of the second modality. Among windows of consecutive rows, the run with the largest z-value of the mean gain is
selected. If the z-value exceeds a threshold, the run is reported and the search continues on the remaining windows.

Shapes: `W` windows, `L` rows of a window, `D` dimension, `C = W + 1` cuts between windows, `l` rows near an end.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.diagnostics._sampling import RowWindows

Array = NDArray[Any]

_MAX_OFFSET = 3
_MIN_Z = 6.0
# Minimum numbers of rows in all windows and of known gains in a run for a decision.
_MIN_ROWS, _MIN_GAINS = 32, 8


@dataclass(frozen=True)
class RowOffset:
    """A range in which row i of the first modality matches row i + `offset` of the second.

    The range begins between the two rows `start` and ends between the two rows `stop`, which are adjacent if all rows
    were read. `start` is None if the range begins at the first row; `stop` is None if the range ends at the last row.
    """

    offset: int
    start: tuple[int, int] | None
    stop: tuple[int, int] | None
    cosine: float  # mean cosine of rows `offset` apart
    cosine_unshifted: float  # mean cosine of rows at the same position
    z: float  # z-value of the mean gain


def find_row_offsets(windows: RowWindows, a: str, b: str, *, random_cosine: float) -> tuple[RowOffset, ...]:
    rows_WL = windows.rows_WL
    if rows_WL.size < _MIN_ROWS:
        return ()
    cosine_WL = (windows.z[a] * windows.z[b]).sum(-1).numpy()
    gains = {k: _gain(windows, a, b, k, cosine_WL) for k in range(-_MAX_OFFSET, _MAX_OFFSET + 1) if k}
    free_W = np.ones(len(rows_WL), dtype=np.bool_)
    found = []
    while free_W.any():
        z, first, last, offset = max((*_best_run(gain_WL, free_W), k) for k, gain_WL in gains.items())
        if z < _MIN_Z:
            break
        gain_WL, run = gains[offset], slice(first, last + 1)
        shifted_cosine = float(np.nanmean((gain_WL + cosine_WL)[run]))
        gain = float(np.nanmean(gain_WL[run]))
        # If one modality is rotated, random rows may be more similar than true pairs, and every offset then has a gain.
        # Therefore, require that the rows at the offset are clearly more similar than random rows.
        if shifted_cosine - random_cosine > gain / 2:
            start, stop = _boundary(rows_WL, gain_WL, first, -1), _boundary(rows_WL, gain_WL, last, 1)
            found.append(RowOffset(offset, start, stop, shifted_cosine, shifted_cosine - gain, z))
        free_W[max(0, first - 1) : last + 2] = False
    return tuple(sorted(found, key=lambda item: item.start or (-1, -1)))


def _gain(windows: RowWindows, a: str, b: str, offset: int, cosine_WL: Array) -> Array:
    """Return the increase of the cosine of row i of `a` if its counterpart in `b` is row i + offset; NaN if a row is
    unusable or the counterpart is outside the window.
    """
    gain_WL = (windows.z[a] * windows.z[b].roll(-offset, 1)).sum(-1).numpy() - cosine_WL
    both_WL = windows.usable[a] & windows.usable[b]
    known_WL = (both_WL & windows.usable[b].roll(-offset, 1)).numpy()
    known_WL[:, slice(-offset, None) if offset > 0 else slice(0, -offset)] = False
    return np.where(known_WL, gain_WL, np.nan)


def _best_run(gain_WL: Array, free_W: Array) -> tuple[float, int, int]:
    """Return the z-value, the first window and the last window of the best run."""
    known_WL = ~np.isnan(gain_WL) & free_W[:, None]
    value_WL = np.where(known_WL, gain_WL, 0.0)

    def run_sums(part_W: Array) -> Array:
        """Return the sums over the windows between each pair of cuts."""
        sum_C = np.concatenate([[0.0], np.cumsum(part_W)])
        return np.asarray(sum_C[None] - sum_C[:, None])

    count_CC, sum_CC, square_CC = (run_sums(part_WL.sum(1)) for part_WL in (known_WL, value_WL, value_WL**2))
    cut_C = np.arange(len(count_CC))
    valid_CC = (count_CC >= _MIN_GAINS) & (run_sums(free_W) == cut_C[None] - cut_C[:, None])
    count_CC = np.where(valid_CC, count_CC, 1.0)
    mean_CC = sum_CC / count_CC
    spread_CC = np.sqrt(np.maximum(square_CC / count_CC - mean_CC**2, 1e-12))
    z_CC = np.where(valid_CC, mean_CC / spread_CC * np.sqrt(count_CC), -np.inf)
    first, stop = np.unravel_index(int(z_CC.argmax()), z_CC.shape)
    return float(z_CC[first, stop]), int(first), int(stop) - 1


def _boundary(rows_WL: Array, gain_WL: Array, window: int, side: int) -> tuple[int, int] | None:
    """Locate the start (side -1) or the end (side 1) of a run by the largest cumulative gain."""
    beside = window + side
    near = [window] if not 0 <= beside < len(rows_WL) else sorted((window, beside))
    row_l, gain_l = rows_WL[near].reshape(-1)[::side], np.nan_to_num(gain_WL[near].reshape(-1))[::side]
    at = int(np.cumsum(gain_l).argmax())
    if len(near) == 1 and at >= len(row_l) - 1 - 2 * _MAX_OFFSET:
        return None
    low, high = sorted((int(row_l[at]), int(row_l[min(at + 1, len(row_l) - 1)])))
    return low, high
