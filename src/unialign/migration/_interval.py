"""Extrapolate the overlap from a gallery of the pairs to the whole index, with an interval.

The overlap depends mostly on the selected fraction p = k / m of the gallery, and less on k. The logit of the overlap
above chance is modeled as

    logit((o(k, m) - p) / (1 - p)) = a + b log p + c / sqrt(k),

which is fitted by weighted least squares with priors that pull b and c toward typical values. The overlap@10 in an
index of N rows is the value at k = 10 and p = 10 / N. A small cut-off among the pairs has nearly the same p as cut-off
10 in the index, so the extrapolation is short. For example, overlap@1 among 240 pairs selects 0.4 % of the rows, and
overlap@10 among 10,000 rows selects 0.1 %.

The overlap is fitted twice. The first fit stays close to the typical values of real embedding models, whose overlap
hardly depends on p. The second fit has weak priors and follows the overlaps measured on the pairs. The interval spans
both estimates and their errors, so it is wide if the rows differ from those of the calibration. The constants are
calibrated on real and synthetic indexes (benchmarks/bridge.py).

If the index consists of dense clusters, this extrapolation is too high, because a cluster has few rows among the pairs
and many in the index. It is therefore combined with `_local_overlap`, which uses the density of the whole index. If the
two estimates agree, the combination is their mean, weighted by inverse variance. If the local estimate is significantly
lower, the weight of the extrapolation falls. If it is higher, the interval becomes wider, unless nearly all true
results are near the query, where the local estimate is most accurate.

Shapes: `P` points of the curve, `Q` queries.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.migration._local_overlap import LocalOverlap
from unialign.migration._overlap import OverlapCurve

Array = NDArray[Any]

K = 10
# With this number of pairs, the variance of the error is twice that with many pairs.
_FEW = 30


@dataclass(frozen=True)
class Calibration:
    """Constants of the extrapolation, calibrated by benchmarks/bridge.py.

    Attributes:
        slope, small: typical values of b and c.
        slope_weight, small_weight: weights of the typical values.
        largest: largest fraction p of the fitted points.
        decay: rate at which the weight of a point decreases. The weight is exp(-decay |log p - log(10 / N)|) times the
            fraction of the pairs in the gallery.
    """

    slope: float
    small: float
    slope_weight: float
    small_weight: float
    largest: float
    decay: float


USUAL = Calibration(0.0, -0.33, 1.55, 1.39, 0.1, 0.6)
FREE = Calibration(0.06, -0.76, 0.011, 0.125, 0.2, 0.0)
CONTAINED = Calibration(0.16, -0.05, 3.3, 2.3, 0.03, 0.3)
# Standard deviations of the error of the logit with many pairs, without the error from the choice of queries.
_ERROR, _ERROR_CONTAINED = 0.09, 0.3
# Half-width of the interval in standard deviations, and a margin that widens the interval at both ends.
_QUANTILE, _MARGIN = 1.75, 0.004
# The same constants if the extrapolation is combined with the local estimate.
_ERROR_COMBINED, _QUANTILE_COMBINED, _MARGIN_COMBINED = 0.1, 1.85, 0.006
# Standard deviation of the error of the local logit, and the addition for a window that holds no true results.
_ERROR_LOCAL, _ERROR_OUTSIDE = 0.15, 2.0
# Rows of a wide window differ more than rows near the threshold: error for each doubling of a window above this size.
_ERROR_WIDE, _WIDE = 0.1, 160
# If the local estimate is significantly higher, it is trusted if its window holds nearly all true results, with the
# weight share ** _SHARPNESS. Otherwise, this part of the squared difference is added to the variance.
_SHARPNESS, _HIGHER = 32, 0.1


@dataclass(frozen=True)
class OverlapInterval:
    """Interval of an overlap in the whole index, in [0, 1].

    Attributes:
        estimate: expected value.
        low, high: ends of the 95 % interval.
        within_pairs: overlap at cut-off 10 in the gallery of the pairs, which is an upper bound in most cases.
        pairs, queries: numbers of pairs and queries that were used.
    """

    estimate: float
    low: float
    high: float
    within_pairs: float
    pairs: int
    queries: int

    def to_dict(self) -> dict[str, float | int]:
        """Return the attributes as a dict."""
        return asdict(self)


def estimate_overlap(
    curve: OverlapCurve, values_PQ: Array, items: int, *, width: int = 1, local: LocalOverlap | None = None
) -> OverlapInterval:
    """Estimate the overlap of the first 10 results, or their share among `width` candidates each."""
    queries, pairs = values_PQ.shape[1], int(curve.sizes.max())
    fits = (USUAL, FREE) if width == 1 else (CONTAINED,)
    found = [_extrapolated(curve, values_PQ, items, width, constants) for constants in fits]
    centers, spread = [center for center, _ in found], found[0][1]
    few = math.sqrt(1 + _FEW / pairs)
    if local is None:
        half = _QUANTILE * math.hypot((_ERROR if width == 1 else _ERROR_CONTAINED) * few, spread)
        logits = (min(centers) - half, sum(centers) / len(centers), max(centers) + half)
    else:
        variance = (_ERROR_COMBINED * few) ** 2 + spread**2 + (max(centers) - min(centers)) ** 2 / 4
        center, error = _combined(sum(centers) / len(centers), variance, local)
        logits = (center - _QUANTILE_COMBINED * error, center, center + _QUANTILE_COMBINED * error)
    margin = _MARGIN if local is None else _MARGIN_COMBINED
    chance = min(1.0, width * K / items)
    ends = [
        chance + (1 - chance) * _expit(logit) + sign * margin for sign, logit in zip((-1, 0, 1), logits, strict=True)
    ]
    low, estimate, high = (min(1.0, max(0.0, end)) for end in ends)
    largest = curve.sizes == pairs
    closest = int(np.argmin(np.abs(curve.cutoffs[largest] - K)))
    return OverlapInterval(estimate, low, high, float(values_PQ[largest][closest].mean()), pairs, queries)


def _combined(extrapolated: float, variance: float, local: LocalOverlap) -> tuple[float, float]:
    """Return the logit of both estimates and its standard error."""
    local_variance = local.error**2 + _ERROR_LOCAL**2 + (_ERROR_OUTSIDE * (1 - local.share)) ** 2
    local_variance += (_ERROR_WIDE * max(0.0, math.log2(local.window / _WIDE))) ** 2
    difference = local.logit - extrapolated
    unexplained = max(0.0, difference**2 - variance - local_variance)
    trusted = 1.0 if difference < 0 else local.share**_SHARPNESS
    variance += trusted * unexplained
    weight = 1 / local_variance + 1 / variance
    center = (local.logit / local_variance + extrapolated / variance) / weight
    return center, math.sqrt(1 / weight + _HIGHER * (1 - trusted) * unexplained)


def _extrapolated(
    curve: OverlapCurve, values_PQ: Array, items: int, width: int, constants: Calibration
) -> tuple[float, float]:
    """Return the logit at cut-off 10 in the index, and its standard deviation over queries."""
    share_P = curve.cutoffs / curve.sizes
    used = share_P <= max(constants.largest, float(share_P.min()))
    k_p, p_p, values_pQ = curve.cutoffs[used], share_P[used], values_PQ[used]
    target = min(1.0, K / items)
    weight_p = np.exp(-constants.decay * np.abs(np.log(p_p / target))) * curve.sizes[used] / curve.sizes.max()
    root_p = np.sqrt(weight_p / weight_p.sum())
    columns_p3 = np.stack([np.ones_like(p_p), np.log(p_p / target), k_p**-0.5 - K**-0.5], axis=1)
    priors = np.diag([0, constants.slope_weight, constants.small_weight])[1:]
    system = np.vstack([columns_p3 * root_p[:, None], priors])
    solution_p = np.linalg.pinv(system)[0]  # weight of each equation in the estimate of the intercept a
    usual = float(solution_p[-2:] @ (priors @ np.array([0, constants.slope, constants.small])))
    chance_p = np.minimum(width * p_p, 0.999)
    mean_p = (values_pQ.mean(1) - chance_p) / (1 - chance_p)
    bounded_p = np.clip(mean_p, 0.004, 0.996)
    logit_p = np.log(bounded_p / (1 - bounded_p))
    coefficient_p = solution_p[:-2] * root_p
    # The delta method gives the influence of each query on the logit.
    slope_p = coefficient_p / ((1 - chance_p) * bounded_p * (1 - bounded_p))
    influence_Q = slope_p @ (values_pQ - values_pQ.mean(1, keepdims=True))
    queries = values_PQ.shape[1]
    spread = float(np.sqrt(np.square(influence_Q).sum() / max(1, queries - 1) / queries))
    return float(coefficient_p @ logit_p) + usual, spread


def _expit(x: float) -> float:
    return 1 / (1 + math.exp(-x))
