"""Compute means, squared deviations and covariances of rows in float64, in a single pass with bounded memory.

Blocks are combined as in Chan, Golub, LeVeque (1983), "Algorithms for computing the sample variance", equation 2.1.
Unlike a sum of squares, this update loses no digits if the mean is large.

Shapes: `N` rows of an array, `W` dimension, `b` rows of a block.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign.data import row_blocks

__all__ = ["column_covariance", "column_moments", "row_lengths_mean"]

# Number of entries of a block, and number of rows of a block for covariances. A block of 2 MiB in float64 fits the
# cache of a core, but covariances need blocks with many rows.
_BLOCK = 1 << 18
_COVARIANCE_ROWS = 8192


def column_moments(array_NW: NDArray[np.floating], rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Return the means and the sums of squared deviations; not finite if a row is not finite."""
    width = array_NW.shape[1]
    mean_W, square_W = torch.zeros(2, width, dtype=torch.float64)
    for part, block_bW in row_blocks(array_NW, rows, max(1, _BLOCK // width)):
        x_bW = _float64(block_bW)
        shift_W = x_bW.mean(0)
        x_bW -= shift_W
        block_square_W = x_bW.square_().sum(0)
        difference_W = shift_W - mean_W
        size, total = part.stop - part.start, part.stop
        mean_W += difference_W * (size / total)
        square_W += block_square_W + difference_W.square() * (part.start * size / total)
    return mean_W, square_W


def column_covariance(array_NW: NDArray[np.floating], rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Return the mean and the covariance; NaN if a row is not finite."""
    width = array_NW.shape[1]
    mean_W, product_WW = torch.zeros(width, dtype=torch.float64), torch.zeros(width, width, dtype=torch.float64)
    for part, block_bW in row_blocks(array_NW, rows, _COVARIANCE_ROWS):
        x_bW = _float64(block_bW)
        shift_W = x_bW.mean(0)
        x_bW -= shift_W
        difference_W = shift_W - mean_W
        size, total = part.stop - part.start, part.stop
        mean_W += difference_W * (size / total)
        product_WW += x_bW.mT @ x_bW + torch.outer(difference_W, difference_W) * (part.start * size / total)
    return mean_W, product_WW / len(rows)


def row_lengths_mean(
    array_NW: NDArray[np.floating], rows: NDArray[np.int64], mean_W: Tensor, axes_WD: Tensor, scale_D: Tensor
) -> float:
    """Return the mean norm of (x - mean) axes / scale."""
    total = 0.0
    for _, block_bW in row_blocks(array_NW, rows, _COVARIANCE_ROWS):
        z_bD = (_float64(block_bW) - mean_W) @ axes_WD / scale_D
        total += float(torch.linalg.vector_norm(z_bD, dim=1).sum())
    return total / len(rows)


def _float64(block_bW: NDArray[np.floating]) -> Tensor:
    x_bW = torch.from_numpy(np.array(block_bW))  # Copy, since callers overwrite the block.
    # Convert via float32, since direct conversion from float16 to float64 is slow.
    return (x_bW.float() if x_bW.dtype == torch.float16 else x_bW).double()
