"""Principal components of the centered Gaussian kernel of one modality, in float64.

The kernel is exp(-|x - y|^2 / (2 c)), where c is the median squared distance between rows. With up to `landmarks` rows,
the components are those of kernel principal component analysis (Schoelkopf, Smola, Mueller 1998, "Nonlinear component
analysis as a kernel eigenvalue problem", section 3). With more rows, random landmarks approximate the kernel (Williams,
Seeger 2001, "Using the Nystroem method to speed up kernel machines", equation 8).

Shapes: `n` rows, `L` landmarks, `W` dimension, `r` components, `b` rows of a block.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign.errors import DataError
from unialign.space._eigenvectors import leading_eigenvectors


class Blocks(Protocol):
    """A function that reads the rows of a modality in float64, block by block."""

    def __call__(self, chosen_n: NDArray[np.int64] | None = None, /) -> Iterator[Tensor]:
        """Yield the rows at the ascending positions `chosen_n`, or all rows if it is None."""
        ...


# Maximum number of rows that are all landmarks by default, and number of landmarks for more rows.
_MOST_EXACT_ROWS, _LANDMARKS = 5000, 2000
# Maximum number of rows whose distances determine the bandwidth, which gives about two million pairs.
_BANDWIDTH_ROWS = 2000
# Range of the squared distances, so that a space can compute sums and differences of them in float32.
_LEAST_SQUARE, _LARGEST_SQUARE = 1e-30, 1e36


@dataclass(frozen=True)
class KernelBasis:
    """Principal components of a centered Gaussian kernel.

    Attributes:
        landmarks_LW: landmark rows, to which kernel values are computed.
        bandwidth: median squared distance c between rows.
        offset_L: mean kernel value between all rows and each landmark.
        components_Lr: matrix that maps a centered kernel row (L,) to the r left singular coordinates of the row.
        spectrum_r: eigenvalues s^2 of the centered kernel matrix of the rows, descending.
        rows: number n of rows.
    """

    landmarks_LW: Tensor
    bandwidth: float
    offset_L: Tensor
    components_Lr: Tensor
    spectrum_r: Tensor
    rows: int

    def vectors(self, x_bW: Tensor) -> Tensor:
        """Return the entries (b, r) of the left singular vectors for the given rows."""
        return (gaussian_kernel(x_bW, self.landmarks_LW, self.bandwidth) - self.offset_L) @ self.components_Lr

    def ridge_weights(self, regularization: float) -> Tensor:
        """Return the weights s^2 / (s^2 + regularization n) of the components, (r,)."""
        return self.spectrum_r / (self.spectrum_r + regularization * self.rows)


def gaussian_kernel(x_bW: Tensor, y_LW: Tensor, bandwidth: float | Tensor) -> Tensor:
    """Return exp(-|x - y|^2 / (2 bandwidth)), (b, L)."""
    return (-squared_distances(x_bW, y_LW) / (2 * bandwidth)).exp_()


def squared_distances(x_bW: Tensor, y_LW: Tensor) -> Tensor:
    """Center first, since x^2 + y^2 - 2xy loses precision for rows far from the origin."""
    mean_W = y_LW.mean(0)
    x_bW, y_LW = x_bW - mean_W, y_LW - mean_W
    square_b, square_L = x_bW.square().sum(1), y_LW.square().sum(1)
    return torch.addmm(square_b[:, None] + square_L, x_bW, y_LW.mT, alpha=-2).clamp_(min=0)


def kernel_basis(
    blocks: Blocks, rows: int, *, name: str, landmarks: int | str, seed: int = 0, bandwidth: float | None = None
) -> KernelBasis:
    """Compute the kernel components of a modality; memory use depends on the number of landmarks, not of rows.

    Args:
        blocks: function that yields rows in order, in float64.
        rows: number of rows.
        name: name of the modality, for error messages.
        landmarks: maximum number of landmarks. With at most this many rows, all rows are landmarks and the result is
            exact. `auto`: all rows if there are at most 5,000, otherwise 2,000 random rows.
        seed: seed of the choice of landmarks.
        bandwidth: the bandwidth c. None: the median squared distance between at most 2,000 landmarks.

    Raises:
        DataError: all landmarks are equal, or their distances are out of the range of float32.
    """
    most = (rows if rows <= _MOST_EXACT_ROWS else _LANDMARKS) if isinstance(landmarks, str) else landmarks
    chosen_L = np.arange(rows)
    if rows > most:
        chosen_L = np.sort(np.random.default_rng(seed).choice(rows, most, replace=False, shuffle=False))
    landmarks_LW = torch.cat(list(blocks(chosen_L)))
    if bandwidth is None:
        bandwidth = median_squared_distance(landmarks_LW, seed=seed)
    _check_distances(landmarks_LW, bandwidth, rows, name)
    kernel_LL = gaussian_kernel(landmarks_LW, landmarks_LW, bandwidth)
    if rows <= most:
        offset_L, components_Lr, spectrum_r = _exact(kernel_LL)
    else:
        offset_L, components_Lr, spectrum_r = _nystroem(blocks, rows, landmarks_LW, kernel_LL, bandwidth)
    return KernelBasis(landmarks_LW, bandwidth, offset_L, components_Lr, spectrum_r, rows)


def _check_distances(landmarks_LW: Tensor, bandwidth: float, rows: int, name: str) -> None:
    if not bandwidth > 0:
        equal = (
            f"all {rows} training rows of {name!r} are equal"
            if len(landmarks_LW) == rows
            else f"the landmarks of {name!r}, {len(landmarks_LW)} random rows of {rows} training rows, are equal"
        )
        advice = "omit" if len(landmarks_LW) == rows else "use more landmarks, or omit"
        raise DataError(f"{equal}, so its kernel has no components; {advice} {name!r}")
    largest = float((landmarks_LW - landmarks_LW.mean(0)).square().sum(1).max())
    if bandwidth < _LEAST_SQUARE or max(bandwidth, largest) > _LARGEST_SQUARE:
        raise DataError(
            f"float32 cannot hold the squared distances of {name!r}: their median is {bandwidth:.3g}, and the largest "
            f"squared distance from the mean is {largest:.3g}; rescale {name!r}, or use input_norm='standardize'"
        )


def median_squared_distance(x_nW: Tensor, *, seed: int = 0) -> float:
    """Return the median over at most 2,000 rows; if most rows are copies, over pairs of rows that differ."""
    if len(x_nW) > _BANDWIDTH_ROWS:
        rows = np.random.default_rng(seed).choice(len(x_nW), _BANDWIDTH_ROWS, replace=False)
        x_nW = x_nW[torch.from_numpy(rows)]
    if len(x_nW) < 2:
        return 0.0
    first, second = torch.triu_indices(len(x_nW), len(x_nW), 1)
    pairs = squared_distances(x_nW, x_nW)[first, second]
    median = float(pairs.median())
    largest = float(pairs.max())
    if median <= 1e-12 * largest:
        pairs = pairs[pairs > 1e-12 * largest]
        median = float(pairs.median()) if len(pairs) else 0.0
    return median


def _exact(kernel_nn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    offset_n = kernel_nn.mean(0)
    centered_nn = kernel_nn - offset_n - offset_n[:, None] + offset_n.mean()
    spectrum_r, vectors_nr = leading_eigenvectors(centered_nn)
    # The centered kernel times its eigenvectors is s^2 times the eigenvectors, so divide by s^2.
    return offset_n, vectors_nr / spectrum_r, spectrum_r


def _nystroem(
    blocks: Blocks, rows: int, landmarks_LW: Tensor, kernel_LL: Tensor, bandwidth: float
) -> tuple[Tensor, Tensor, Tensor]:
    values_q, vectors_Lq = leading_eigenvectors(kernel_LL)
    # The inner products of phi(x) = k(x) root are the Nystroem approximation of the kernel.
    root_Lq = vectors_Lq / values_q.sqrt()
    offset_L, product_qq = (
        torch.zeros(len(landmarks_LW), dtype=torch.float64),
        torch.zeros(len(values_q), len(values_q)),
    )
    product_qq = product_qq.double()
    for x_bW in blocks():
        offset_L += gaussian_kernel(x_bW, landmarks_LW, bandwidth).sum(0) / rows
    for x_bW in blocks():
        features_bq = (gaussian_kernel(x_bW, landmarks_LW, bandwidth) - offset_L) @ root_Lq
        product_qq.addmm_(features_bq.mT, features_bq)
    spectrum_r, axes_qr = leading_eigenvectors(product_qq)
    return offset_L, root_Lq @ (axes_qr / spectrum_r.sqrt()), spectrum_r
