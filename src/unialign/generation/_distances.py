"""Distances between sets of images from their features, for given item weights.

Item i occurs w_i times in a bootstrap resample. Means over pairs of images exclude the pair of an image with itself and
all pairs of copies of the same item.

Shapes: `N`, `M` images, `F` features, `R` resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unialign._invalid_rows import first_bad_row
from unialign.batch import as_dense
from unialign.errors import NonFiniteError, ShapeError
from unialign.evaluation import Statistic

# Maximum number of weighted features in a block of resamples (64 MiB).
_BLOCK = 2**23


def frechet_distance(x: Any, y: Any) -> float:
    """Compute the squared Wasserstein-2 distance of Gaussians fitted to two sets of features (Heusel et al. 2017).

    |m_x - m_y|^2 + tr(S_x + S_y - 2 (S_x^1/2 S_y S_x^1/2)^1/2), at least 0. Covariances use the factor 1 / (N - 1), as
    in FID. The trace of the root is computed as the sum of the singular values of S_x^1/2 S_y^1/2, which is accurate
    even for singular covariances (N <= F). The estimate decreases with N, so compare only sets of equal size.

    Args:
        x, y: features of shape (N, F) and (M, F), with at least two rows each; computations use float64.

    Raises:
        ShapeError: features are not 2-D, have fewer than two rows, or have different dims.
        NonFiniteError: a row contains NaN or infinity.
    """
    x_NF, y_MF = _check_sets(x, y)
    moments = [_compute_moments(z_NF, torch.ones(1, len(z_NF), dtype=torch.float64)) for z_NF in (x_NF, y_MF)]
    return float(_compute_frechet(*moments[0], *moments[1]))


def kernel_distance(x: Any, y: Any) -> float:
    """Compute KID (Binkowski et al. 2018), the unbiased MMD^2 with the kernel (x . y / F + 1)^3.

    The expectation of KID is 0 for equal distributions, so the value may be negative.

    Args and errors are those of `frechet_distance`.
    """
    x_NF, y_MF = _check_sets(x, y)
    own = [PairMean(cubic_kernel(z, z)).evaluate(torch.ones(1, len(z))) for z in (x_NF, y_MF)]
    return float(own[0] + own[1] - 2 * cubic_kernel(x_NF, y_MF).mean())


def cubic_kernel(x_NF: Tensor, y_MF: Tensor) -> Tensor:
    """Return (x . y / F + 1)^3."""
    return (x_NF @ y_MF.mT / x_NF.shape[1] + 1) ** 3


def gaussian_kernel(x_NF: Tensor, y_MF: Tensor, bandwidth: float) -> Tensor:
    """Return exp(-|x - y|^2 / (2 bandwidth^2))."""
    squared_NM = x_NF.square().sum(1)[:, None] + y_MF.square().sum(1) - 2 * x_NF @ y_MF.mT
    return torch.exp(squared_NM.clamp_min(0) / (-2 * bandwidth**2))


@dataclass(frozen=True)
class Frechet:
    """Row i of both sets belongs to item i. The result is NaN if the weights sum to 1 or less."""

    x_NF: Tensor
    y_NF: Tensor

    def evaluate(self, weights_RN: Tensor) -> Tensor:
        rows, dim = self.x_NF.shape
        parts = []
        for w_rN in torch.split(weights_RN.double(), max(1, _BLOCK // (dim * max(rows, dim)))):
            value_r = _compute_frechet(*_compute_moments(self.x_NF, w_rN), *_compute_moments(self.y_NF, w_rN))
            parts.append(torch.where(w_rN.sum(1) > 1, value_r, torch.nan))
        return torch.cat(parts)


@dataclass(frozen=True)
class PairMean:
    """Mean of a symmetric kernel over pairs of different items: sum_{i != j} w_i w_j k_ij / sum_{i != j} w_i w_j.

    Pairs of copies of an item are excluded, since otherwise every resample would be less diverse than the data. The
    result is NaN if fewer than two items have a positive weight.
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
    """The unbiased MMD^2 of two sets as a function of item weights; row i of both sets belongs to item i.

    Both sets are resampled together. Within a set, pairs of copies are excluded (`PairMean`). Across sets, a pair of
    different items has weight w_i w_j, and the two images of an item have weight w_i, so that equal weights give the
    usual estimate and a resample does not overweight matching pairs. The result is NaN if fewer than two items have a
    positive weight.
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
    """scale * mean + offset."""

    parts: Sequence[Statistic]
    scale: float = 1.0
    offset: float = 0.0

    def evaluate(self, weights_RN: Tensor) -> Tensor:
        return self.scale * torch.stack([part.evaluate(weights_RN) for part in self.parts]).mean(0) + self.offset


def as_features(value: Any, what: str, *, min_rows: int = 1) -> Tensor:
    x_NF = as_dense(value, what, "(N, F)")
    if x_NF.ndim != 2 or len(x_NF) < min_rows or x_NF.shape[1] < 1 or x_NF.is_complex() or x_NF.dtype == torch.bool:
        expected = f"real numbers of shape (N, F) with N of at least {min_rows}"
        raise ShapeError(f"{what} is {x_NF.dtype} of shape {tuple(x_NF.shape)}; expected {expected}")
    x_NF = x_NF.detach().double().cpu()
    if bad := first_bad_row(x_NF, ~torch.isfinite(x_NF).all(1)):
        raise NonFiniteError(f"{what}, row {bad.row}, {bad.what}{bad.more}; expected finite features")
    return x_NF


def _check_sets(x: Any, y: Any) -> tuple[Tensor, Tensor]:
    x_NF, y_MF = as_features(x, "x", min_rows=2), as_features(y, "y", min_rows=2)
    if x_NF.shape[1] != y_MF.shape[1]:
        raise ShapeError(f"x has dim {x_NF.shape[1]}, but y has dim {y_MF.shape[1]}; use the same extractor")
    return x_NF, y_MF


def _compute_moments(x_NF: Tensor, weights_RN: Tensor) -> tuple[Tensor, Tensor]:
    # Center first, since a large mean would reduce the precision of the covariance.
    common_F = x_NF.mean(0)
    centered_NF = x_NF - common_F
    total_R1 = weights_RN.sum(1, keepdim=True)
    mean_RF = weights_RN @ centered_NF / total_R1
    squares_RFF = (centered_NF.mT * weights_RN[:, None]) @ centered_NF
    squares_RFF = squares_RFF - total_R1[..., None] * mean_RF[:, :, None] * mean_RF[:, None]
    return common_F + mean_RF, squares_RFF / (total_R1 - 1).clamp_min(1)[..., None]


def _compute_frechet(mean_x_RF: Tensor, cov_x_RFF: Tensor, mean_y_RF: Tensor, cov_y_RFF: Tensor) -> Tensor:
    apart_R = (mean_x_RF - mean_y_RF).square().sum(-1)
    traces_R = (cov_x_RFF + cov_y_RFF).diagonal(dim1=-2, dim2=-1).sum(-1)
    root_R = torch.linalg.svdvals(_factorize(cov_x_RFF).mT @ _factorize(cov_y_RFF)).sum(-1)
    distance_R: Tensor = (apart_R + traces_R - 2 * root_R).clamp_min(0)
    return distance_R


def _factorize(cov_RFF: Tensor) -> Tensor:
    """Return L with L L^T = covariance, which equals the symmetric root up to an orthogonal factor."""
    values_RF, axes_RFF = torch.linalg.eigh(cov_RFF)
    factor_RFF: Tensor = axes_RFF * values_RF.clamp_min(0).sqrt()[:, None]
    return factor_RFF
