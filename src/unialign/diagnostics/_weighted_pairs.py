"""Means over pairs of different items, and their values on bootstrap resamples.

Shapes: `n` items, `R` resamples.
"""

import torch
from torch import Tensor


def pair_means(values_nn: Tensor, different_nn: Tensor, weights_Rn: Tensor) -> tuple[float, Tensor]:
    """Return the mean, and its values on resamples. The weight w_i w_j of a pair is replaced by w_i + w_j - 1 for
    weights of mean 1, the first-order projection of a U-statistic (Hoeffding 1948). The cost per resample is then O(n)
    instead of O(n^2).
    """
    value_nn = torch.where(different_nn, values_nn, 0.0)
    value_n = value_nn.sum(1) + value_nn.sum(0)
    count_n = (different_nn.sum(1) + different_nn.sum(0)).double()
    mean = float(value_n.sum() / count_n.sum())
    weights_Rn = weights_Rn * (weights_Rn.shape[1] / weights_Rn.sum(1, keepdim=True))
    return mean, (weights_Rn @ value_n - value_n.sum() / 2) / (weights_Rn @ count_n - count_n.sum() / 2)


def exact_pair_means(values_nn: Tensor, different_nn: Tensor, weights_Rn: Tensor) -> tuple[float, Tensor]:
    """Return the same with the exact weights w_i w_j, for statistics whose first-order projection is zero."""
    value_nn, count_nn = torch.where(different_nn, values_nn, 0.0), different_nn.double()
    values_R = ((weights_Rn @ value_nn) * weights_Rn).sum(1) / ((weights_Rn @ count_nn) * weights_Rn).sum(1)
    return float(value_nn.sum() / count_nn.sum()), values_R
