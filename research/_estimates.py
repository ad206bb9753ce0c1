"""Numbers over runs: intervals over seeds, and rank correlations within cells of like runs.

Shapes: `n` runs of a cell, `R` resamples.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Cells", "rank_correlation", "seed_interval"]

# Two-sided 95 % quantiles of Student's t by degrees of freedom; beyond them the normal's is within 4 %.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
_NORMAL = 1.96

Cells = Mapping[Hashable, Sequence[tuple[float, float]]]


def seed_interval(values: Sequence[float | None]) -> dict[str, float]:
    """Mean of one number a seed with its 95 % t-interval; a single seed has none. Missing values are left out."""
    known = [v for v in values if v is not None and math.isfinite(v)]
    if not known:
        return {"mean": math.nan, "low": math.nan, "high": math.nan}
    mean = math.fsum(known) / len(known)
    if len(known) == 1:
        return {"mean": mean, "low": math.nan, "high": math.nan}
    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in known) / (len(known) - 1))
    freedom = len(known) - 1
    reach = (_T[freedom - 1] if freedom <= len(_T) else _NORMAL) * deviation / math.sqrt(len(known))
    return {"mean": mean, "low": mean - reach, "high": mean + reach}


def rank_correlation(cells: Cells, *, resamples: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Spearman's rank correlation of x and y with ranks taken within each cell, and its 95 % bootstrap interval.

    Ranks are centred and divided by the size of their cell, so that what differs between cells (the data set, the
    number of modalities) cannot show up as a correlation. The bootstrap draws runs with replacement within each cell.

    Returns:
        `mean` (NaN where all ranks tie), `low`, `high`, `runs`, `cells`; cells of fewer than three runs are left out.
    """
    known = [
        np.array(
            [(x, y) for x, y in pairs if x is not None and y is not None and math.isfinite(x) and math.isfinite(y)]
        )
        for pairs in cells.values()
    ]
    known = [pairs_n2 for pairs_n2 in known if len(pairs_n2) >= 3]
    none = {"mean": math.nan, "low": math.nan, "high": math.nan, "runs": 0, "cells": 0}
    if not known:
        return none
    rng = np.random.default_rng(seed)
    point = _pooled([_cell_sums(pairs_n2[None]) for pairs_n2 in known])
    sums = []
    for pairs_n2 in known:
        draws_Rn = rng.integers(len(pairs_n2), size=(resamples, len(pairs_n2)))
        # In blocks: ranks compare every pair of a cell.
        blocks = [_cell_sums(pairs_n2[block]) for block in np.array_split(draws_Rn, max(1, resamples // 200))]
        sums.append(np.concatenate(blocks, 1))
    values_R = _pooled(sums)
    values_R = values_R[np.isfinite(values_R)]
    low, high = np.quantile(values_R, [0.025, 0.975]) if len(values_R) else (math.nan, math.nan)
    return {
        "mean": float(point[0]),
        "low": float(low),
        "high": float(high),
        "runs": sum(map(len, known)),
        "cells": len(known),
    }


def _cell_sums(pairs_Rn2: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, R) sums of rank products xy, xx, yy of a cell."""
    x_Rn, y_Rn = (_centred_ranks(pairs_Rn2[..., k]) for k in (0, 1))
    return np.stack([(x_Rn * y_Rn).sum(1), (x_Rn**2).sum(1), (y_Rn**2).sum(1)])


def _centred_ranks(values_Rn: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean ranks of ties, centred, divided by n."""
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
