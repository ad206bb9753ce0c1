"""Test the significance of differences: p-values of a paired bootstrap with seed variance, and Holm's correction.

Shapes: `S` seeds (training runs), `R` resamples.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from unialign.errors import ConfigError


def add_seed_variance(values_SR: Tensor, points_S: Tensor, *, seed: int = 0) -> Tensor:
    """Return (R,) means over seeds of resampled values, plus noise for the variation between seeds.

    Resampling only items would treat the trained models as fixed; resampling the S seeds as well would capture only (S
    - 1) / S of their variance, which is two thirds for S = 3. The noise is therefore normal with variance s^2 / S,
    where s^2 is the unbiased variance over seeds. No noise is added for a single seed.

    Args:
        values_SR: a metric, or a paired difference, under the same R resamples of items for each seed.
        points_S: the value on the original items for each seed.
        seed: seed of the noise.
    """
    mean_R = values_SR.nanmean(0)
    if len(points_S) < 2:
        return mean_R
    standard_error = float(points_S.std(unbiased=True)) / math.sqrt(len(points_S))
    noise_R = torch.randn(len(mean_R), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return mean_R + standard_error * noise_R


def bootstrap_p_value(differences_R: Tensor) -> float:
    """Return the two-sided p-value, twice the smaller fraction of differences on one side of 0, in [2 / (R + 1), 1].

    The observed data count as one resample, so p is never 0 (Davison & Hinkley 1997, section 4.2). The result is NaN if
    no difference is defined.
    """
    values = differences_R[~torch.isnan(differences_R)]
    if len(values) == 0:
        return math.nan
    smaller = min(int((values <= 0).sum()), int((values >= 0).sum()))
    return min(1.0, 2 * (smaller + 1) / (len(values) + 1))


def holm_correction(p_values: Sequence[float]) -> list[float]:
    """Return p-values in the given order, adjusted for the family-wise error rate by Holm's (1979) step-down method.

    Raises:
        ConfigError: a value outside [0, 1].
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise ConfigError(f"p-values must be in [0, 1], got {list(p_values)}")
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = running
    return adjusted
