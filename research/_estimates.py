"""Compute intervals over seeds, and rank correlations within cells of comparable runs.

Shapes: `n` runs of a cell, `R` resamples.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Cells", "Interval", "rank_correlation", "seed_interval"]

# Two-sided 95 % quantiles of Student's t for 1 to 10 degrees of freedom. Above 10, the normal quantile is used, which
# is at most 11 % too small.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
_NORMAL = 1.96

Cells = Mapping[Hashable, Sequence[tuple[float | None, float | None]]]


class Interval(NamedTuple):
    """An estimate with a 95 % interval; unknown values are NaN."""

    mean: float
    low: float = math.nan
    high: float = math.nan

    @classmethod
    def read(cls, entry: Mapping[str, Any] | None) -> "Interval":
        values = ((entry or {}).get(key) for key in cls._fields)
        return cls(*(math.nan if value is None else value for value in values))

    def scaled(self, factor: float) -> "Interval":
        return Interval(*(factor * value for value in self))


def seed_interval(values: Sequence[float | None]) -> Interval:
    known = [v for v in values if v is not None and math.isfinite(v)]
    if not known:
        return Interval(math.nan)
    mean = math.fsum(known) / len(known)
    freedom = len(known) - 1
    if freedom == 0:
        return Interval(mean)
    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in known) / freedom)
    reach = (_T[freedom - 1] if freedom <= len(_T) else _NORMAL) * deviation / math.sqrt(len(known))
    return Interval(mean, mean - reach, mean + reach)


def rank_correlation(cells: Cells, *, resamples: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Spearman's correlation of x and y, ranked within each cell, and its 95 % bootstrap interval.

    Ranks are centered and divided by the size of the cell, so that differences between cells, such as data sets or
    numbers of modalities, do not contribute. Cells of fewer than three runs are excluded.
    """
    arrays = [np.array([*pairs], dtype=np.float64).reshape(-1, 2) for pairs in cells.values()]  # None becomes NaN
    known = [pairs_n2[np.isfinite(pairs_n2).all(1)] for pairs_n2 in arrays]
    known = [pairs_n2 for pairs_n2 in known if len(pairs_n2) >= 3]
    if not known:
        return {**Interval(math.nan)._asdict(), "runs": 0, "cells": 0}
    rng = np.random.default_rng(seed)
    point = _pooled([_cell_sums(pairs_n2[None]) for pairs_n2 in known])
    sums = []
    for pairs_n2 in known:
        draws_Rn = rng.integers(len(pairs_n2), size=(resamples, len(pairs_n2)))
        # Process resamples in blocks to bound memory, since ranking compares every pair of runs of a cell.
        blocks = [_cell_sums(pairs_n2[block]) for block in np.array_split(draws_Rn, max(1, resamples // 200))]
        sums.append(np.concatenate(blocks, 1))
    values_R = _pooled(sums)
    values_R = values_R[np.isfinite(values_R)]
    low, high = map(float, np.quantile(values_R, [0.025, 0.975])) if len(values_R) else (math.nan, math.nan)
    runs = sum(map(len, known))
    return {"mean": float(point[0]), "low": low, "high": high, "runs": runs, "cells": len(known)}


def _cell_sums(pairs_Rn2: NDArray[np.float64]) -> NDArray[np.float64]:
    x_Rn, y_Rn = (_centered_ranks(pairs_Rn2[..., k]) for k in (0, 1))
    return np.stack([(x_Rn * y_Rn).sum(1), (x_Rn**2).sum(1), (y_Rn**2).sum(1)])


def _centered_ranks(values_Rn: NDArray[np.float64]) -> NDArray[np.float64]:
    below_Rn = (values_Rn[:, :, None] > values_Rn[:, None, :]).sum(2)
    equal_Rn = (values_Rn[:, :, None] == values_Rn[:, None, :]).sum(2)
    n = values_Rn.shape[1]
    ranks_Rn: NDArray[np.float64] = (below_Rn + (equal_Rn + 1) / 2 - (n + 1) / 2) / n
    return ranks_Rn


def _pooled(sums: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    xy_R, xx_R, yy_R = np.sum(sums, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        pooled_R: NDArray[np.float64] = xy_R / np.sqrt(xx_R * yy_R)
    return pooled_R
