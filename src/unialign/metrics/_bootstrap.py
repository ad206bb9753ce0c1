"""Bootstrap by weights: draw the groups once, then every metric of every run is a weighted statistic of its scores.

Shapes: `N` items, `R` resamples. Efron & Tibshirani 1993, chapter 13 (percentile interval); groups of items are drawn
whole, since captions of one image or frames of one film are not independent.
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

__all__ = ["Interval", "percentile_interval", "resample_weights", "weight_blocks", "weighted_mean", "weighted_median"]

# Most weights in a block of resamples (32 MiB of float64).
_BLOCK = 2**22


@dataclass(frozen=True)
class Interval:
    """A number and how far it may be off; unpacks to `low, high`."""

    estimate: float
    low: float
    high: float

    def __iter__(self) -> Iterator[float]:
        yield self.low
        yield self.high

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def resample_weights(items_or_groups: Any, *, resamples: int = 1000, seed: int = 0) -> Tensor:
    """How often each item is drawn in each bootstrap resample, (R, N) float64 whole numbers.

    Args:
        items_or_groups: N, or (N,) integer or text labels: as many groups as there are are drawn with replacement, and
            an item is drawn as often as its group.
        resamples: R, at least 1.
        seed: the draw depends on it and on the labels only, so that runs scored on the same items share it.

    Raises:
        ShapeError: no items, or labels that are not (N,).
        ConfigError: fewer than one resample.
    """
    return torch.cat(list(weight_blocks(items_or_groups, resamples=resamples, seed=seed)))


def weight_blocks(items_or_groups: Any, *, resamples: int, seed: int) -> Iterator[Tensor]:
    """The rows of `resample_weights` in blocks of bounded memory; the block size does not change them."""
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
        counts = np.stack(
            [
                np.bincount(rng.integers(groups, size=groups), minlength=groups)
                for _ in range(min(step, resamples - start))
            ]
        )
        yield torch.from_numpy((counts if group_N is None else counts[:, group_N]).astype(np.float64))


def weighted_mean(scores_N: Tensor, weights_RN: Tensor) -> Tensor:
    """(R,) mean of the scores under each row of weights; NaN scores (undefined items) have no weight."""
    defined_N = ~torch.isnan(scores_N)
    weights_RN = weights_RN * defined_N
    return (weights_RN @ torch.where(defined_N, scores_N, 0.0).to(weights_RN.dtype)) / weights_RN.sum(1)


def weighted_median(scores_N: Tensor, weights_RN: Tensor) -> Tensor:
    """(R,) median of the scores, each counted as often as its whole-number weight says; NaN scores do not count."""
    defined_N = ~torch.isnan(scores_N)
    sorted_N, order_N = scores_N[defined_N].sort()
    running_RN = weights_RN[:, defined_N][:, order_N].cumsum(1)
    total_R1 = running_RN[:, -1:]
    # The two middle places, counted from 1; the same one when the number is odd.
    middle_R2 = torch.cat([torch.floor((total_R1 + 1) / 2), torch.ceil((total_R1 + 1) / 2)], 1)
    return sorted_N[torch.searchsorted(running_RN, middle_R2).clamp(max=len(sorted_N) - 1)].mean(1)


def percentile_interval(values_R: Tensor, level: float = 0.95, *, estimate: float | None = None) -> Interval:
    """The middle `level` of resampled values; NaN values (a resample without any defined item) are left out.

    Args:
        values_R: the statistic on each resample.
        level: in (0, 1).
        estimate: the statistic on the data itself; their mean if None.

    Raises:
        ConfigError: level outside (0, 1).
        ShapeError: no defined value.
    """
    check_number("level", level, "between 0 and 1", lambda x: 0 < x < 1)
    values = values_R.detach().double().cpu()
    values = values[~torch.isnan(values)]
    if len(values) == 0:
        raise ShapeError("no resample has a defined value, so there is no interval")
    low, high = torch.quantile(values, torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)).tolist()
    return Interval(float(values.mean()) if estimate is None else estimate, low, high)
