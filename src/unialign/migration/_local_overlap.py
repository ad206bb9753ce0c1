"""Estimate the overlap in the whole index from the errors of pairs that are near the same query.

The scores of all mapped rows of the index are known, and so are the true scores of the pairs. The true score of row i
for a query is modeled as b s_i + e_i, where s_i is the score of the mapped row and e_i is independent Gaussian noise
with standard deviation d. The constants b and d are fitted to the pairs that are among the first R mapped rows of a
query in the whole index, after subtraction of the mean over these pairs, so that errors common to all rows near a query
have no effect. The expected overlap then depends only on b / d: the threshold t of the true first k rows solves

    sum_i Phi((b s_i - t) / d) = k,

and the overlap is the mean of Phi((b s_i - t) / d) over the first k mapped rows. This estimate uses the density of the
whole index, so it holds for dense clusters, unlike an extrapolation of the overlaps among the pairs.

A small R is close to the first k rows but has few pairs. R is therefore the largest number whose estimate agrees with
those of all smaller numbers, within their errors (Lepski 1991). The errors are jackknife errors over groups of pairs.

Shapes: `Q` queries, `n` pairs, `K` scores of the index, `R` window sizes, `G` groups of pairs.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unialign.migration._index_scores import TopScores

Array = NDArray[Any]

# Number of kept scores of the index, at least; more are kept for a sparse sample of pairs.
LEAST_KEPT, _KEPT_PER_SPACING = 1500, 4
# The smallest window, number of windows, and number of groups of the jackknife.
_SMALLEST, _WINDOWS, _GROUPS = 20, 10, 12
# The minimum number of degrees of freedom of a window, and the number that is enough for any window.
_FEWEST, _ENOUGH = 50, 400
# Largest difference of estimates that agree, in standard errors.
_AGREES = 1.25
# Correction added to the logit: its mean error, since rows near the threshold vary less than the rows of a window
# (measured by benchmarks/bridge.py).
_BIAS = 0.14
# Jackknife errors are too small by this factor, since the window is chosen.
_INFLATION = 1.2


@dataclass(frozen=True)
class LocalOverlap:
    """Estimated overlap above chance, as a logit.

    Attributes:
        error: standard error from the choice of the pairs and queries.
        window: number R of rows near a query to which the model was fitted.
        share: expected fraction of the true first k rows that are among the first R mapped rows.
    """

    logit: float
    error: float
    window: int
    share: float


def kept_scores(items: int, pairs: int) -> int:
    """Return the number of scores of the index that `local_overlap` needs."""
    return max(LEAST_KEPT, _KEPT_PER_SPACING * items // pairs)


def local_overlap(
    top: TopScores, true_Qn: Array, mapped_Qn: Array, *, k: int, items: int, seed: int
) -> LocalOverlap | None:
    """Return the estimate; None if too few queries have two pairs near them.

    Args:
        true_Qn, mapped_Qn: scores of the true and of the held-out mapped rows of all pairs; -inf for the query itself.
    """
    group_n = np.random.default_rng(seed).permutation(true_Qn.shape[1]) % _GROUPS
    windows = [_Window.fitted(top, true_Qn, mapped_Qn, group_n, rows) for rows in _window_sizes(top)]
    chosen = _chosen([window for window in windows if window is not None])
    if chosen is None:
        return None
    sharpness = math.exp(chosen.log_sharpness)
    mean, deviation = expected_overlap(top, sharpness, k)
    share = expected_overlap(top, sharpness, k, among=chosen.rows)[0]
    low, high = (expected_overlap(top, sharpness * factor, k)[0] for factor in (0.9, 1.1))
    slope = (_logit(high, k / items) - _logit(low, k / items)) / math.log(1.1 / 0.9)
    from_queries = deviation / math.sqrt(len(true_Qn)) / max(mean * (1 - mean), 1e-3)
    error = math.hypot(_INFLATION * slope * chosen.error, from_queries)
    return LocalOverlap(_logit(mean, k / items) + _BIAS, error, chosen.rows, share)


def expected_overlap(top: TopScores, sharpness: float, k: int, *, among: int | None = None) -> tuple[float, float]:
    """Return the mean and the standard deviation over queries of the expected overlap@k for a given b / d.

    Args:
        among: number of mapped rows among which the true first k rows are counted; None: k.
    """
    # Rows beyond these scores hardly reach the threshold.
    score_QK = top.scores[:, :LEAST_KEPT] * sharpness
    wanted = k / top.weight
    counted = wanted if among is None else among / top.weight
    inside_K = np.clip(counted - np.arange(score_QK.shape[1]), 0, 1)
    threshold_Q = score_QK[:, min(int(wanted), score_QK.shape[1] - 1)].copy()
    for _ in range(15):
        z_QK = score_QK - threshold_Q[:, None]
        count_Q = np.maximum(_normal_cdf(z_QK).sum(1), 1e-9)
        density_Q = np.maximum(np.exp(-(z_QK**2) / 2).sum(1) / math.sqrt(2 * math.pi), 1e-9)
        threshold_Q += np.clip(np.log(count_Q / wanted) * count_Q / density_Q, -2, 2)
    p_QK = _normal_cdf(score_QK - threshold_Q[:, None])
    overlap_Q = (p_QK * inside_K).sum(1) / np.maximum(p_QK.sum(1), 1e-9)
    return float(overlap_Q.mean()), float(overlap_Q.std())


@dataclass(frozen=True)
class _Window:
    """The fitted b / d of the pairs among the first `rows` mapped rows of each query.

    Attributes:
        left_out_G: its logarithm without each group of pairs.
        freedom: number of degrees of freedom.
    """

    rows: int
    log_sharpness: float
    left_out_G: Array
    freedom: int

    @property
    def error(self) -> float:
        return _jackknife(self.left_out_G)

    @classmethod
    def fitted(
        cls, top: TopScores, true_Qn: Array, mapped_Qn: Array, group_n: NDArray[np.int64], rows: int
    ) -> "_Window | None":
        last = min(round(rows / top.weight), top.scores.shape[1]) - 1
        near_Qn = (mapped_Qn >= top.scores[:, last, None]) & np.isfinite(mapped_Qn)
        whole = _log_sharpness(near_Qn, true_Qn, mapped_Qn)
        parts = [_log_sharpness(near_Qn & (group_n != g), true_Qn, mapped_Qn) for g in range(_GROUPS)]
        found = [part[0] for part in parts if part is not None]
        if whole is None or len(found) < _GROUPS:
            return None
        return cls(rows, whole[0], np.array(found), whole[1])


def _window_sizes(top: TopScores) -> list[int]:
    sizes = [_SMALLEST * 2**i for i in range(_WINDOWS)]
    return [size for size in sizes if 2 <= round(size / top.weight) <= top.scores.shape[1]]


def _chosen(windows: list[_Window]) -> _Window | None:
    """Return the largest window that agrees with all smaller windows."""
    usable = [window for window in windows if window.freedom >= _FEWEST]
    if not usable:
        return None
    best = usable[0]
    for i, window in enumerate(usable[1:], 1):
        gaps = [
            abs(window.log_sharpness - other.log_sharpness) - _AGREES * _jackknife(window.left_out_G - other.left_out_G)
            for other in usable[:i]
        ]
        if best.freedom >= _ENOUGH or max(gaps) > 0:
            break
        best = window
    return best


def _log_sharpness(near_Qn: NDArray[np.bool_], true_Qn: Array, mapped_Qn: Array) -> tuple[float, int] | None:
    """Return log(b / d) and the degrees of freedom of the regression within queries; None if it is not defined."""
    count_Q = near_Qn.sum(1)
    used_Q = count_Q >= 2
    freedom = int((count_Q[used_Q] - 1).sum()) - 1
    if freedom < 1:
        return None
    near_qn, count_q1 = near_Qn[used_Q], count_Q[used_Q, None]
    s_qn, t_qn = (np.where(near_qn, scores_Qn[used_Q], 0.0) for scores_Qn in (mapped_Qn, true_Qn))
    s_qn, t_qn = (np.where(near_qn, x_qn - x_qn.sum(1, keepdims=True) / count_q1, 0.0) for x_qn in (s_qn, t_qn))
    ss, st, tt = float((s_qn**2).sum()), float((s_qn * t_qn).sum()), float((t_qn**2).sum())
    if ss <= 0 or st <= 0:
        return None
    variance = max(tt - st * st / ss, 1e-9 * tt, 1e-18) / freedom
    return math.log(st / ss) - 0.5 * math.log(variance), freedom


def _jackknife(values_G: Array) -> float:
    groups = len(values_G)
    return math.sqrt((groups - 1) / groups * float(np.square(values_G - values_G.mean()).sum()))


def _logit(overlap: float, chance: float) -> float:
    above = min(0.9985, max(0.002, (overlap - chance) / (1 - chance)))
    return math.log(above / (1 - above))


def _normal_cdf(z: Array) -> Array:
    return np.asarray(torch.special.ndtr(torch.from_numpy(np.ascontiguousarray(z))).numpy())
