"""Bootstrap estimates: a value, its 95 % interval and the resamples behind it.

All estimates of a diagnosis use the same resample weights, so that differences of two estimates are paired.

Shapes: `n` sampled items, `R` resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unialign.metrics import percentile_interval, weighted_mean

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A value, its 95 % interval, and the (R,) resampled values."""

    mean: float
    low: float
    high: float
    values_R: Tensor

    def to_dict(self) -> dict[str, float]:
        return {"mean": self.mean, "low": self.low, "high": self.high}

    def exceeds(self, other: "Estimate") -> bool:
        """Return whether at least 97.5 % of the resamples exceed the paired ones of `other`."""
        return float(np.nanquantile((self.values_R - other.values_R).numpy(), 0.025)) > 0


def estimate(mean: float, values_R: Tensor, *, minimum: float = -np.inf) -> Estimate:
    """Build an estimate from a value and its resamples, shifted so that their mean equals the value.

    The shift removes the bias caused by repeated items in resamples.
    """
    # A resample of a single item has no pair of different items, and its value is undefined.
    values_R = torch.where(torch.isfinite(values_R), values_R, torch.nan)
    if not np.isfinite(mean) or bool(torch.isnan(values_R).all()):
        return Estimate(mean, float("nan"), float("nan"), values_R)
    values_R = values_R - values_R.nanmean() + mean
    low, high = percentile_interval(values_R, LEVEL)
    return Estimate(mean, max(minimum, min(low, mean)), max(high, mean), values_R)


def estimate_mean(scores_n: Tensor, weights_Rn: Tensor) -> Estimate:
    """Estimate the mean of per-item scores; NaN marks an item without a score."""
    minimum = 0.0 if bool((scores_n.nan_to_num() >= 0).all()) else -np.inf
    return estimate(float(scores_n.nanmean()), weighted_mean(scores_n, weights_Rn), minimum=minimum)


def average(estimates: Sequence[Estimate]) -> Estimate | None:
    """Average estimates over the same items, resample by resample; None if none is finite."""
    finite = [value for value in estimates if np.isfinite(value.mean)]
    if not finite:
        return None
    values_R = torch.stack([value.values_R for value in finite]).nanmean(0)
    minimum = 0.0 if all(value.low >= 0 for value in finite) else -np.inf
    return estimate(float(np.mean([value.mean for value in finite])), values_R, minimum=minimum)
