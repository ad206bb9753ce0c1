"""Bootstrap estimates. All estimates of a diagnosis use the same resample weights, so differences are paired.

Shapes: `n` sampled items, `R` resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from unialign.metrics import percentile_interval, weighted_mean

LEVEL = 0.95
_FEW_UNITS = 200


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval, its (R,) resampled values and its largest possible value."""

    mean: float
    low: float
    high: float
    values_R: Tensor
    maximum: float = np.inf

    def to_dict(self) -> dict[str, float]:
        return {"mean": self.mean, "low": self.low, "high": self.high}

    def exceeds(self, other: "Estimate") -> bool:
        """Return whether at least 97.5 % of the resamples exceed the paired resamples of `other`."""
        return float(np.nanquantile((self.values_R - other.values_R).numpy(), 0.025)) > 0


def estimate(mean: float, values_R: Tensor, *, minimum: float = -np.inf, maximum: float = np.inf) -> Estimate:
    """Return an estimate; the resamples are shifted so that their mean is the value, which removes the bias of repeated
    items.
    """
    # The value is undefined in a resample that repeats a single item, since such a resample has no pair of different
    # items.
    values_R = torch.where(torch.isfinite(values_R), values_R, torch.nan)
    if not np.isfinite(mean) or bool(torch.isnan(values_R).all()):
        return Estimate(mean, float("nan"), float("nan"), values_R, maximum)
    values_R = values_R - values_R.nanmean() + mean
    low, high = percentile_interval(values_R, LEVEL)
    return Estimate(mean, max(minimum, min(low, mean)), max(min(high, maximum), mean), values_R, maximum)


def estimate_mean(scores_n: Tensor, weights_Rn: Tensor) -> Estimate:
    """Estimate the mean of scores of at most 1; NaN marks an item without a score."""
    minimum = 0.0 if bool((scores_n.nan_to_num() >= 0).all()) else -1.0
    return estimate(float(scores_n.nanmean()), weighted_mean(scores_n, weights_Rn), minimum=minimum, maximum=1.0)


def estimate_rate(scores_n: Tensor, weights_Rn: Tensor, *, units: int) -> Estimate:
    """Estimate the mean of scores in [0, 1] of `units` independent items; NaN marks an item without a score."""
    return widen_constant(estimate_mean(scores_n, weights_Rn), units=units)


def widen_constant(found: Estimate, *, units: int) -> Estimate:
    """Widen an interval of zero width: if all scores are 0 or all are 1, all resamples are equal. One bound is then
    replaced by the rate at which only 2.5 % of samples would have all scores equal: a^(1 / units) for scores of 1, with
    a = 0.025 (Clopper & Pearson 1934). With 200 units or more, the bound would move by less than two percentage points.
    """
    if units >= _FEW_UNITS:
        return found
    bound = ((1 - LEVEL) / 2) ** (1 / max(units, 1))
    if found.mean == 1.0:
        return replace(found, low=bound)
    return replace(found, high=1 - bound) if found.mean == 0.0 else found


def difference(first: Estimate, second: Estimate) -> Estimate:
    return estimate(first.mean - second.mean, first.values_R - second.values_R, minimum=-1.0, maximum=1.0)


def ratio(first: Estimate, second: Estimate) -> Estimate:
    return estimate(first.mean / second.mean, first.values_R / second.values_R, minimum=0.0)


def average(estimates: Sequence[Estimate]) -> Estimate | None:
    """Average estimates, resample by resample; None if no estimate is finite."""
    finite = [value for value in estimates if np.isfinite(value.mean)]
    if not finite:
        return None
    values_R = torch.stack([value.values_R for value in finite]).nanmean(0)
    minimum = 0.0 if all(value.low >= 0 for value in finite) else -np.inf
    maximum = max(value.maximum for value in finite)
    mean = float(np.mean([value.mean for value in finite]))
    return estimate(mean, values_R, minimum=minimum, maximum=maximum)
