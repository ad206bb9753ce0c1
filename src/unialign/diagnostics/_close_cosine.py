"""Find the cosine from which two rows are more likely related than similar by chance.

Related rows add large cosines to those of unrelated rows. Two null distributions describe unrelated rows, and the
larger frequency of both counts as chance:

- The negative cosines, mirrored: if rows and their opposites are equally frequent, as for normal columns, `c` and `-c`
  are equally frequent.
- The cosines of surrogate rows. Their columns have the same values and nearly the same correlations as those of the
  rows, but their normal scores are jointly normal (a Gaussian copula). They also describe skewed columns, such as
  counts and outputs of a ReLU.

The ratio of the null frequency to the observed frequency of a cosine is the fraction of the pairs that chance explains
(the local false discovery rate, Efron et al. 2001).

Shapes: `k` rows, `s` surrogate rows, `W` columns, `b` bins of the absolute cosine, in ascending order, `p` pairs.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Number of bins of [0, 1].
BINS = 100
# Smallest fraction of observed pairs among observed and null pairs: there, chance explains half of the observed ones.
_OBSERVED = 2 / 3

Counts = NDArray[np.float64]


def histograms(cosine_p: Tensor) -> tuple[Counts, Counts]:
    """Numbers of positive and of negative cosines in each bin of the absolute cosine."""
    bin_p = (cosine_p.abs() * BINS).long().clamp(max=BINS - 1)
    count_2b = torch.bincount(torch.where(cosine_p > 0, bin_p, BINS + bin_p), minlength=2 * BINS)
    count = count_2b.double().numpy()
    return count[:BINS], count[BINS:]


def close_bin(observed_b: Counts, null_b: Counts) -> int:
    """Return the first bin from which chance explains at most half of the observed pairs; `b` if there is none.

    The observed fraction of observed and null pairs is assumed to rise with the cosine, so that bins with few pairs
    use those of their neighbors.
    """
    fraction_b = rising_fractions(observed_b, observed_b + null_b)
    enough = np.flatnonzero((fraction_b >= _OBSERVED) & (observed_b > 0))
    enough = enough[enough > 0]  # The cosine of a close pair is positive.
    return int(enough[0]) if len(enough) else len(observed_b)


def rising_fractions(count_b: Counts, total_b: Counts) -> Counts:
    """Isotonic regression of `count_b / total_b` with weights `total_b` (pool adjacent violators, Ayer et al. 1955).
    A bin without pairs has the fraction of the bin below it, or NaN.
    """
    blocks: list[tuple[int, float, float]] = []  # first bin, count, total
    for at in np.flatnonzero(total_b).tolist():
        first, count, total = at, float(count_b[at]), float(total_b[at])
        while blocks and blocks[-1][1] * total >= count * blocks[-1][2]:
            first, before, size = blocks.pop()
            count, total = count + before, total + size
        blocks.append((first, count, total))
    fraction_b = np.full(len(total_b), math.nan)
    for first, count, total in blocks:
        fraction_b[first:] = count / total
    return fraction_b


def surrogate_histogram(x_kW: Tensor, rows: int, *, seed: int) -> Counts:
    """Fraction of the pairs of different surrogate rows in each bin of the positive cosine."""
    y_sW = surrogate_rows(x_kW, rows, seed=seed)
    y_sW = y_sW / torch.linalg.vector_norm(y_sW, dim=1, keepdim=True).clamp(min=torch.finfo(y_sW.dtype).tiny)
    positive_b, _ = histograms((y_sW @ y_sW.mT)[~torch.eye(rows, dtype=torch.bool)])
    return positive_b / (rows * (rows - 1))


def surrogate_rows(x_kW: Tensor, rows: int, *, seed: int) -> Tensor:
    """Return unrelated rows whose columns have the values of `x_kW`, at equally spaced quantiles."""
    generator = torch.Generator().manual_seed(seed)
    score_kW = torch.special.ndtri((_average_ranks(x_kW) + 0.5) / len(x_kW))
    score_kW -= score_kW.mean(0)
    normal_sW = torch.randn(rows, len(x_kW), generator=generator, dtype=x_kW.dtype) @ score_kW
    rank_sW = normal_sW.argsort(0).argsort(0)
    at_sW = ((rank_sW + 0.5) * (len(x_kW) / rows)).long().clamp(max=len(x_kW) - 1)
    return x_kW.sort(0).values.gather(0, at_sW)


def _average_ranks(x_kW: Tensor) -> Tensor:
    """Ranks from 0; equal values share the mean of their ranks."""
    sorted_kW, order_kW = x_kW.sort(0)
    first_kW = torch.ones_like(sorted_kW, dtype=torch.bool)
    first_kW[1:] = sorted_kW[1:] != sorted_kW[:-1]
    group_kW = first_kW.cumsum(0) - 1
    rank_kW = torch.arange(len(x_kW), dtype=x_kW.dtype)[:, None].expand_as(x_kW)
    mean_kW = torch.zeros_like(x_kW).scatter_reduce(0, group_kW, rank_kW, "mean", include_self=False)
    return torch.empty_like(x_kW).scatter(0, order_kW, mean_kW.gather(0, group_kW))
