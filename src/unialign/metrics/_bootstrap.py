"""Weighted bootstrap: each resample assigns weights to the items, and metrics are weighted statistics of item scores.

Percentile intervals follow Efron & Tibshirani (1993, chapter 13). Groups of items are resampled as a whole, since
captions of one image or frames of one video are not independent.

Shapes: `N` items, `R` resamples.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unialign._checks import check_integer, check_number, check_seed
from unialign.errors import ShapeError
from unialign.metrics._labels import codes

# Maximum number of weights in a block of resamples (32 MiB of float64).
_BLOCK = 2**22


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval; unpacks to `low, high`."""

    estimate: float
    low: float
    high: float

    def __iter__(self) -> Iterator[float]:
        yield from (self.low, self.high)

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def resample_weights(items_or_groups: Any, *, resamples: int = 1000, seed: int = 0) -> Tensor:
    """Return how often each item is drawn in each bootstrap resample, (R, N) integers as float64.

    Args:
        items_or_groups: the number of items N, or (N,) group labels, which are integers or strings. Each resample draws
            groups with replacement, as many as there are groups. An item is drawn as often as its group.
        resamples: R, at least 1.
        seed: seed of the draw, which depends only on seed and labels, so runs on the same items share resamples.

    Raises:
        ShapeError: no items, or labels that are not (N,).
        ConfigError: `resamples` below 1.
    """
    return torch.cat(list(weight_blocks(items_or_groups, resamples=resamples, seed=seed)))


def weight_blocks(items_or_groups: Any, *, resamples: int, seed: int) -> Iterator[Tensor]:
    """Yield the rows of `resample_weights` in blocks of bounded memory; the block size does not affect the weights."""
    check_integer("resamples", resamples, low=1)
    check_seed(seed)
    if isinstance(items_or_groups, int):
        items, group_N = items_or_groups, None
    else:
        group_N = codes(items_or_groups, "groups").numpy()
        items = len(group_N)
    if items < 1:
        raise ShapeError("a bootstrap needs at least one item")
    groups = items if group_N is None else int(group_N.max()) + 1
    rng = np.random.default_rng(seed)
    step = max(1, _BLOCK // items)
    for start in range(0, resamples, step):
        draws = (rng.integers(groups, size=groups) for _ in range(min(step, resamples - start)))
        counts = np.stack([np.bincount(draw, minlength=groups) for draw in draws])
        yield torch.from_numpy((counts if group_N is None else counts[:, group_N]).astype(np.float64))


def weighted_mean(scores_N: Tensor, weights_RN: Tensor) -> Tensor:
    """Return (R,) weighted means of the scores; NaN scores (undefined items) are ignored."""
    defined_N = ~torch.isnan(scores_N)
    weights_RN = weights_RN * defined_N
    return (weights_RN @ torch.where(defined_N, scores_N, 0.0).to(weights_RN.dtype)) / weights_RN.sum(1)


def weighted_median(scores_N: Tensor, weights_RN: Tensor) -> Tensor:
    """Return (R,) weighted medians. Integer weights are repetition counts; NaN scores are ignored."""
    defined_N = ~torch.isnan(scores_N)
    sorted_N, order_N = scores_N[defined_N].sort()
    running_RN = weights_RN[:, defined_N][:, order_N].cumsum(1)
    total_R1 = running_RN[:, -1:]
    # One-based ranks of the two middle scores; equal for odd counts.
    middle_R2 = torch.cat([torch.floor((total_R1 + 1) / 2), torch.ceil((total_R1 + 1) / 2)], 1)
    return sorted_N[torch.searchsorted(running_RN, middle_R2).clamp(max=len(sorted_N) - 1)].mean(1)


def percentile_interval(values_R: Tensor, level: float = 0.95, *, estimate: float | None = None) -> Interval:
    """Return the central interval that contains a fraction `level` of the resampled values; NaN values are ignored.

    Args:
        values_R: the statistic on each resample.
        level: in (0, 1).
        estimate: the statistic on the original data; the mean of the resampled values if None.

    Raises:
        ConfigError: level outside (0, 1).
        ShapeError: all values are NaN.
    """
    check_number("level", level, "between 0 and 1", lambda x: 0 < x < 1)
    values = values_R.detach().double().cpu()
    values = values[~torch.isnan(values)]
    if len(values) == 0:
        raise ShapeError("no resample has a defined value, so there is no interval")
    low, high = torch.quantile(values, torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)).tolist()
    return Interval(float(values.mean()) if estimate is None else estimate, low, high)
