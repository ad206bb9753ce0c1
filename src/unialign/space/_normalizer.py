"""Normalization of features before the first layer. Shapes: `B` rows, `W` dimension of a modality."""

from collections.abc import Iterator
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unialign._checks import check_choice
from unialign.config import InputNorm

_CHUNK_ROWS = 8192


def centered_chunks(
    array_NW: NDArray[np.floating], rows: NDArray[np.int64], mean_W: NDArray[np.float64] | float = 0.0
) -> Iterator[NDArray[np.float64]]:
    """Read rows in float64, minus a mean, in chunks of bounded memory."""
    for start in range(0, len(rows), _CHUNK_ROWS):
        yield array_NW[rows[start : start + _CHUNK_ROWS]].astype(np.float64) - mean_W


class Standardize(nn.Module):
    """Standardize columns by mean and standard deviation, which are buffers saved with the space."""

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))

    def forward(self, x_BW: Tensor) -> Tensor:
        return (x_BW - self.mean) / self.std

    @torch.no_grad()
    def fit(self, array_NW: NDArray[np.floating], rows: NDArray[np.int64], *, name: str) -> None:
        """Set mean and standard deviation from these rows, in float64.

        Constant columns get deviation 1, so that they become zeros instead of amplified rounding errors.
        """
        # Infinite features raise later with their row; here they would only cause a warning.
        with np.errstate(invalid="ignore", over="ignore"):
            mean_W = sum(x.sum(0) for x in centered_chunks(array_NW, rows)) / len(rows)
            square_W = sum((x**2).sum(0) for x in centered_chunks(array_NW, rows, mean_W))
        std_W = np.sqrt(square_W / len(rows))
        # Use relative bounds: features may have any scale, and constant columns deviate only by rounding.
        smallest_W = np.maximum(1e-6 * std_W.max(), 1e-7 * np.abs(mean_W))
        std_W = np.where(std_W > smallest_W, std_W, 1.0)
        self.mean.copy_(torch.from_numpy(np.asarray(mean_W)).float())
        self.std.copy_(torch.from_numpy(std_W).float())


class UnitNorm(nn.Module):
    """Divide each row by its norm; zero rows stay zero."""

    def forward(self, x_BW: Tensor) -> Tensor:
        return divide_by_norm(x_BW)


def divide_by_norm(x_BW: Tensor) -> Tensor:
    """Return unit rows; zero rows stay zero."""
    # Divide by the largest entry first, so that squares of huge entries stay finite.
    largest_B1 = x_BW.abs().amax(-1, keepdim=True)
    scaled_BW = x_BW / torch.where(largest_B1 > 0, largest_B1, 1.0)
    norm_B1 = torch.linalg.vector_norm(scaled_BW, dim=-1, keepdim=True)
    return scaled_BW / torch.where(norm_B1 > 0, norm_B1, 1.0)


def make_input_norm(input_norm: str, dim: int) -> nn.Module:
    """Build the module of an input normalization."""
    check_choice("input_norm", input_norm, get_args(InputNorm))
    if input_norm == "standardize":
        return Standardize(dim)
    return UnitNorm() if input_norm == "unit" else nn.Identity()
