"""Compute cosine cut-offs by false-positive rate, for one pair of modalities.

Shapes: `n` items, `q` pairs of different items, `c` largest cosines in descending order, `R` resamples.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign.diagnostics._estimate import Estimate, estimate, widen_constant

# Fractions of pairs of different items with a cosine above the cut-off.
RATES = (0.01, 0.001, 0.0001)
# Minimum number of pairs of different items above a cut-off; with fewer pairs, the cut-off is mostly noise.
_MIN_ABOVE = 20
# The largest cosines are kept up to this multiple of the largest rate, since a resample may need a lower cut-off.
_KEPT = 4


@dataclass(frozen=True)
class Cutoff:
    rate: float  # fraction of pairs of different items with a cosine above the cut-off
    cosine: Estimate  # the cut-off
    true_fraction: Estimate  # fraction of true pairs with a cosine above the cut-off


def measure_cutoffs(x_nD: Tensor, y_nD: Tensor, class_n: NDArray[np.int64], weights_Rn: Tensor) -> tuple[Cutoff, ...]:
    """Compute the cut-offs. The interval of a cut-off follows from the resampled rate at the cut-off (Woodruff 1952):
    if the rate on a resample is p', the cut-off on this resample is estimated by the cosine with the rate p^2 / p' in
    the sample.
    """
    cosine_nn = (x_nD @ y_nD.mT).numpy()
    true_n = cosine_nn.diagonal().copy()
    size_n = np.bincount(class_n)[class_n]
    if size_n.max() == 1:
        np.fill_diagonal(cosine_nn, -2.0)
    else:
        cosine_nn[class_n[:, None] == class_n] = -2.0
    others_n = len(class_n) - size_n
    pairs = int(others_n.sum())
    rates = [rate for rate in RATES if rate * pairs >= _MIN_ABOVE]
    if not rates:
        return ()
    top_c = _largest(cosine_nn, min(int(_KEPT * rates[0] * pairs) + 1, pairs))
    row_q, column_q = np.nonzero(cosine_nn > top_c[int(rates[0] * pairs)])
    above = _Above(cosine_nn[row_q, column_q], row_q, column_q, others_n)
    weights_Rn = weights_Rn * (len(class_n) / weights_Rn.sum(1, keepdim=True))
    return tuple(_cutoff(rate, pairs, top_c, above, true_n, weights_Rn) for rate in rates)


def _largest(cosine_nn: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    cosine_q = cosine_nn.reshape(-1)
    largest_c = np.partition(cosine_q, len(cosine_q) - count)[len(cosine_q) - count :]
    return np.sort(largest_c)[::-1]


@dataclass(frozen=True)
class _Above:
    """Pairs of different items with a cosine above the cut-off of the largest rate."""

    cosine_q: NDArray[np.float64]
    row_q: NDArray[np.int64]
    column_q: NDArray[np.int64]
    others_n: NDArray[np.int64]  # number of rows that are not positives of each item

    def rates(self, at: float, weights_Rn: Tensor) -> tuple[float, Tensor]:
        above_q = self.cosine_q > at
        count_n = sum(
            np.bincount(side_q[above_q], minlength=len(self.others_n)) for side_q in (self.row_q, self.column_q)
        )
        above_n, whole_n = torch.as_tensor(count_n).double(), torch.from_numpy(2.0 * self.others_n)
        found_R = (weights_Rn @ above_n - above_n.sum() / 2) / (weights_Rn @ whole_n - whole_n.sum() / 2)
        return float(above_n.sum() / whole_n.sum()), found_R


def _cutoff(
    rate: float,
    pairs: int,
    top_c: NDArray[np.float64],
    above: _Above,
    true_n: NDArray[np.float64],
    weights_Rn: Tensor,
) -> Cutoff:
    at = float(top_c[int(rate * pairs)])
    found, found_R = above.rates(at, weights_Rn)
    # If many cosines are equal, the fraction above the cut-off is below the rate.
    ratio_R = (found_R / found if found > 0 else torch.ones_like(found_R)).clamp(min=1 / _KEPT)
    index_R = (rate * pairs / ratio_R).long().clamp(max=len(top_c) - 1)
    at_R = torch.from_numpy(top_c[index_R.numpy()])
    # The true pairs above each cut-off, from the sorted cosines and the running sums of their weights.
    order_n = torch.from_numpy(np.argsort(true_n))
    below_R = torch.searchsorted(torch.from_numpy(true_n)[order_n].contiguous(), at_R, right=True)
    total_R = torch.nn.functional.pad(weights_Rn[:, order_n].cumsum(1), (1, 0))
    fraction_R = 1 - total_R.gather(1, below_R[:, None])[:, 0] / len(true_n)
    fraction = estimate(float((true_n > at).mean()), fraction_R, minimum=0.0, maximum=1.0)
    return Cutoff(
        rate=rate,
        cosine=estimate(at, at_R, minimum=-1.0, maximum=1.0),
        true_fraction=widen_constant(fraction, units=len(true_n)),
    )
