"""How far two sets of images lie apart, from their features; each distance also as a function of item weights.

A bootstrap repeats items, so it is written here as whole-number weights: a set in which item i stands w_i times. A pair
of copies of one item says nothing about two different images; where a distance is a mean over pairs of different
images, pairs of copies are left out like an image's pair with itself.

Shapes: `N`, `M` images, `F` features, `R` resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unialign.batch import as_dense, first_bad_row
from unialign.errors import NonFiniteError, ShapeError
from unialign.evaluation import Statistic

__all__ = [
    "Average",
    "Frechet",
    "KernelDistance",
    "PairMean",
    "as_features",
    "cubic_kernel",
    "frechet_distance",
    "gaussian_kernel",
    "kernel_distance",
]

# Most numbers that the weighted features of one block of resamples hold (64 MiB).
_BLOCK = 2**23


def frechet_distance(x: Any, y: Any) -> float:
    """|m_x - m_y|^2 + tr(S_x + S_y - 2 (S_x^1/2 S_y S_x^1/2)^1/2), at least 0: the squared Wasserstein-2 distance of
    the Gaussians with the means and covariances of the two sets (Heusel et al. 2017, there with Inception features).

    Covariances divide by N - 1, as FID's do. The trace of the root is the sum of the singular values of
    S_x^1/2 S_y^1/2, which keeps its digits where a covariance lacks directions (N <= F). Rounding below 0 becomes 0.
    The value falls with N: compare sets of equal size only.

    Args:
        x, y: (N, F), (M, F) real numbers, at least two rows each; computed in float64.

    Raises:
        ShapeError: not 2-D, one row, or unequal widths.
        NonFiniteError: a row holds NaN or infinity.
    """
    x_NF, y_MF = _two_sets(x, y)
    moments = [_moments(z_NF, torch.ones(1, len(z_NF), dtype=torch.float64)) for z_NF in (x_NF, y_MF)]
    return float(_frechet(*moments[0], *moments[1]))


def kernel_distance(x: Any, y: Any) -> float:
    """KID (Binkowski et al. 2018): the unbiased MMD^2 with the kernel (x . y / F + 1)^3.

    0 on average for equal distributions, and so below 0 at times.

    Args, Raises: as `frechet_distance`.
    """
    x_NF, y_MF = _two_sets(x, y)
    one_N, one_M = (torch.ones(1, len(z), dtype=torch.float64) for z in (x_NF, y_MF))
    own = PairMean(cubic_kernel(x_NF, x_NF)).evaluate(one_N) + PairMean(cubic_kernel(y_MF, y_MF)).evaluate(one_M)
    return float(own - 2 * cubic_kernel(x_NF, y_MF).mean())


def cubic_kernel(x_NF: Tensor, y_MF: Tensor) -> Tensor:
    """(N, M) of (x . y / F + 1)^3."""
    return (x_NF @ y_MF.mT / x_NF.shape[1] + 1) ** 3


def gaussian_kernel(x_NF: Tensor, y_MF: Tensor, bandwidth: float) -> Tensor:
    """(N, M) of exp(-|x - y|^2 / (2 tau^2))."""
    squared_NM = x_NF.square().sum(1)[:, None] + y_MF.square().sum(1) - 2 * x_NF @ y_MF.mT
    return torch.exp(squared_NM.clamp_min(0) / (-2 * bandwidth**2))


@dataclass(frozen=True)
class Frechet:
    """`frechet_distance` of two sets whose rows i belong to item i, as a function of item weights.

    Both sets are resampled together. Weights w give exactly the distance of the sets in which row i stands w_i times:
    the covariances divide by sum w - 1. NaN where the weights sum to 1 or less.
    """

    x_NF: Tensor
    y_NF: Tensor

    def evaluate(self, weights_RN: Tensor) -> Tensor:
        rows, width = self.x_NF.shape
        parts = []
        for w_rN in torch.split(weights_RN.double(), max(1, _BLOCK // (width * max(rows, width)))):
            value_r = _frechet(*_moments(self.x_NF, w_rN), *_moments(self.y_NF, w_rN))
            parts.append(torch.where(w_rN.sum(1) > 1, value_r, torch.nan))
        return torch.cat(parts)


@dataclass(frozen=True)
class PairMean:
    """Mean of a symmetric kernel over pairs of different items: sum_{i != j} w_i w_j k_ij / sum_{i != j} w_i w_j.

    Copies of one item make no pair, else every resample would look less diverse than the data. NaN where the weights
    leave a single item.
    """

    kernel_NN: Tensor

    def evaluate(self, weights_RN: Tensor) -> Tensor:
        w_RN = weights_RN.double()
        squares_RN = w_RN.square()
        sums_R = ((w_RN @ self.kernel_NN) * w_RN).sum(1) - squares_RN @ self.kernel_NN.diagonal()
        pairs_R = w_RN.sum(1).square() - squares_RN.sum(1)
        return torch.where(pairs_R > 0, sums_R / pairs_R, torch.nan)


@dataclass(frozen=True)
class KernelDistance:
    """The unbiased MMD^2 of two sets whose rows i belong to item i, as a function of item weights.

    Both sets are resampled together. Inside a set pairs of copies are left out (`PairMean`). Across the sets, every
    pair of different items counts w_i w_j times and an item's own pair w_i times: copy for copy, not every copy with
    every other one. So weights of one give the plain estimate, and a resample gives an item's own pair no more weight
    than the data do. NaN where the weights leave a single item.
    """

    own: tuple[PairMean, PairMean]
    cross_NN: Tensor

    def evaluate(self, weights_RN: Tensor) -> Tensor:
        w_RN = weights_RN.double()
        diagonal_RN = w_RN - w_RN.square()
        sums_R = ((w_RN @ self.cross_NN) * w_RN).sum(1) + diagonal_RN @ self.cross_NN.diagonal()
        cross_R = sums_R / (w_RN.sum(1).square() + diagonal_RN.sum(1))
        return self.own[0].evaluate(w_RN) + self.own[1].evaluate(w_RN) - 2 * cross_R


@dataclass(frozen=True)
class Average:
    """scale * mean of several statistics of the same items + offset."""

    parts: Sequence[Statistic]
    scale: float = 1.0
    offset: float = 0.0

    def evaluate(self, weights_RN: Tensor) -> Tensor:
        return self.scale * torch.stack([part.evaluate(weights_RN) for part in self.parts]).mean(0) + self.offset


def as_features(value: Any, what: str, *, least: int = 1) -> Tensor:
    """The border: (N, F) float64 on the CPU, at least `least` rows; errors as in `frechet_distance`."""
    x_NF = as_dense(value, what, "(N, F)")
    if x_NF.ndim != 2 or len(x_NF) < least or x_NF.shape[1] < 1 or x_NF.is_complex() or x_NF.dtype == torch.bool:
        raise ShapeError(
            f"{what} is {x_NF.dtype} of shape {tuple(x_NF.shape)}; expected real numbers of shape (N, F) with N of at "
            f"least {least}"
        )
    x_NF = x_NF.detach().double().cpu()
    bad = first_bad_row(x_NF, ~torch.isfinite(x_NF).all(1))
    if bad is not None:
        raise NonFiniteError(f"{what}, row {bad.row}, {bad.what}{bad.more}; expected finite features")
    return x_NF


def _two_sets(x: Any, y: Any) -> tuple[Tensor, Tensor]:
    x_NF, y_MF = as_features(x, "x", least=2), as_features(y, "y", least=2)
    if x_NF.shape[1] != y_MF.shape[1]:
        raise ShapeError(
            f"x is {x_NF.shape[1]} wide, y is {y_MF.shape[1]}; both need the features of one and the same extractor"
        )
    return x_NF, y_MF


def _moments(x_NF: Tensor, weights_RN: Tensor) -> tuple[Tensor, Tensor]:
    """Means (R, F) and covariances (R, F, F) of the rows, each repeated as often as its weight says."""
    # Without the common mean first, a large mean would eat the digits of the covariance.
    common_F = x_NF.mean(0)
    centred_NF = x_NF - common_F
    total_R1 = weights_RN.sum(1, keepdim=True)
    mean_RF = weights_RN @ centred_NF / total_R1
    squares_RFF = (centred_NF.mT * weights_RN[:, None]) @ centred_NF
    squares_RFF = squares_RFF - total_R1[..., None] * mean_RF[:, :, None] * mean_RF[:, None]
    return common_F + mean_RF, squares_RFF / (total_R1 - 1).clamp_min(1)[..., None]


def _frechet(mean_x_RF: Tensor, cov_x_RFF: Tensor, mean_y_RF: Tensor, cov_y_RFF: Tensor) -> Tensor:
    apart_R = (mean_x_RF - mean_y_RF).square().sum(-1)
    traces_R = (cov_x_RFF + cov_y_RFF).diagonal(dim1=-2, dim2=-1).sum(-1)
    root_R = torch.linalg.svdvals(_factor(cov_x_RFF).mT @ _factor(cov_y_RFF)).sum(-1)
    distance_R: Tensor = (apart_R + traces_R - 2 * root_R).clamp_min(0)
    return distance_R


def _factor(cov_RFF: Tensor) -> Tensor:
    """L with L L^T = the covariance: its axes times the roots of its eigenvalues.

    The symmetric root is L times a rotation, which leaves the singular values of the product of two roots alone.
    """
    values_RF, axes_RFF = torch.linalg.eigh(cov_RFF)
    factor_RFF: Tensor = axes_RFF * values_RF.clamp_min(0).sqrt()[:, None]
    return factor_RFF
