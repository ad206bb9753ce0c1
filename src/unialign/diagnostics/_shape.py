"""Compare the distributions of two modalities.

Shapes: `n` items, `D` dim, `R` resamples, `C` classes of positives, `F` sign flips.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign.diagnostics._estimate import Estimate, estimate
from unialign.diagnostics._unit import unit
from unialign.diagnostics._weighted_pairs import exact_pair_means, pair_means

_FLIPS = 400


@dataclass(frozen=True)
class ShapeStats:
    items: int
    # Standard deviation of the cosines of random pairs, which is the scale for temperatures and cut-offs.
    deviation: Estimate
    # |S_a - S_b|^2 / (|S_a|^2 + |S_b|^2) of the covariances, Frobenius norms: 0 if equal, 1 if orthogonal.
    covariance_mismatch: Estimate
    # Maximum mean discrepancy of the centered unit rows: what remains of the gap without the means.
    distribution_gap: Estimate
    distribution_p: float  # p-value of the distribution gap, from random exchanges of the two rows of an item
    bandwidth: float  # bandwidth of the Gaussian kernel: median distance of the centered rows


def measure_shape(
    x_nD: Tensor, y_nD: Tensor, class_n: NDArray[np.int64], weights_Rn: Tensor, *, seed: int
) -> ShapeStats:
    """Compare two modalities. The distribution gap is the square root of the unbiased MMD^2 (Gretton et al., JMLR 2012,
    Lemma 6) of the centered unit rows, and 0 if the estimate is negative. The gap is the part of the modality gap that
    does not depend on the distance between the means (arXiv 2604.00279).
    """
    code_n = torch.from_numpy(class_n)
    different_nn = code_n[:, None] != code_n
    deviation = cosine_deviation(x_nD @ y_nD.mT, different_nn, weights_Rn)
    x_nD, y_nD = x_nD - x_nD.mean(0), y_nD - y_nD.mean(0)
    mismatch = _covariance_mismatch(x_nD, y_nD, different_nn, weights_Rn)
    kernel_nn, bandwidth = _kernel_difference(unit(x_nD), unit(y_nD), different_nn)
    gap, p = _distribution_gap(kernel_nn, different_nn, code_n, weights_Rn, seed=seed)
    return ShapeStats(len(x_nD), deviation, mismatch, gap, p, bandwidth)


def cosine_deviation(cosine_nn: Tensor, different_nn: Tensor, weights_Rn: Tensor) -> Estimate:
    mean, mean_R = pair_means(cosine_nn, different_nn, weights_Rn)
    square, square_R = pair_means(cosine_nn.square(), different_nn, weights_Rn)
    variance_R = (square_R - mean_R.square()).clamp(min=0)
    return estimate(math.sqrt(max(square - mean**2, 0.0)), variance_R.sqrt(), minimum=0.0, maximum=1.0)


def _covariance_mismatch(x_nD: Tensor, y_nD: Tensor, different_nn: Tensor, weights_Rn: Tensor) -> Estimate:
    """Estimate the mismatch from tr(S_a S_b) = mean <x_i, y_j>^2 over independent centered rows x_i and y_j."""
    (aa, aa_R), (bb, bb_R), (ab, ab_R) = (
        pair_means((p @ q.mT).square(), different_nn, weights_Rn) for p, q in ((x_nD, x_nD), (y_nD, y_nD), (x_nD, y_nD))
    )
    whole = aa + bb
    value = 1 - 2 * ab / whole if whole > 1e-300 else math.nan
    return estimate(max(0.0, value), 1 - 2 * ab_R / (aa_R + bb_R), minimum=0.0, maximum=1.0)


def _kernel_difference(x_nD: Tensor, y_nD: Tensor, different_nn: Tensor) -> tuple[Tensor, float]:
    """Return h_ij = k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(y_i, x_j), whose mean is MMD^2, and the bandwidth."""
    cosines = [x_nD @ x_nD.mT, y_nD @ y_nD.mT, x_nD @ y_nD.mT]
    median = float(torch.cat([cosine_nn[different_nn] for cosine_nn in cosines]).median())
    # Unit rows closer than 0.01 are treated as equal, as in `geometry.median_bandwidth`.
    square = max(2 - 2 * median, 1e-4)
    xx_nn, yy_nn, xy_nn = (_kernel(cosine_nn, square) for cosine_nn in cosines)
    return xx_nn + yy_nn - xy_nn - xy_nn.mT, math.sqrt(square)


def _kernel(cosine_nn: Tensor, square: float) -> Tensor:
    """Return exp((c - 1) / square) without the constant and the linear term of its series in the cosine c.

    All other coefficients are positive, so the kernel is positive definite. The linear term would measure the distance
    between the means, which is exactly zero after centering, so the unbiased MMD^2 would be too small.
    """
    return torch.exp((cosine_nn - 1) / square) - math.exp(-1 / square) * (1 + cosine_nn / square)


def _distribution_gap(
    kernel_nn: Tensor, different_nn: Tensor, code_n: Tensor, weights_Rn: Tensor, *, seed: int
) -> tuple[Estimate, float]:
    """Return the gap and its p-value. If the two rows of an item are exchanged, h_ij changes its sign for all j, so the
    p-value compares MMD^2 with its values for random signs of the classes.
    """
    squared, squared_R = exact_pair_means(kernel_nn, different_nn, weights_Rn)
    found = estimate(squared, squared_R, maximum=2.0)
    mean, low, high = (math.sqrt(max(value, 0.0)) for value in (found.mean, found.low, found.high))
    gap = Estimate(mean, low, high, found.values_R.clamp(min=0).sqrt(), math.sqrt(2))
    rng = np.random.default_rng(seed)
    sign_FC = torch.from_numpy(rng.choice([-1.0, 1.0], (_FLIPS, int(code_n.max()) + 1)))
    sign_Fn = sign_FC[:, code_n]
    value_nn = torch.where(different_nn, kernel_nn, 0.0)
    flipped_F = ((sign_Fn @ value_nn) * sign_Fn).sum(1)
    above = int((flipped_F >= value_nn.sum()).sum())
    return gap, (1 + above) / (1 + _FLIPS)
