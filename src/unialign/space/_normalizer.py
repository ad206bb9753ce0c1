"""Normalize the input features of a space.

Shapes: `B` rows, `W` dimension of a modality.
"""

from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unialign._checks import check_choice
from unialign.config import InputNorm
from unialign.space._moments import column_moments


class Standardize(nn.Module):
    """Standardize columns by their mean and standard deviation, which are stored as buffers."""

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))

    def forward(self, x_BW: Tensor) -> Tensor:
        return (x_BW - self.mean).div_(self.std)

    @torch.no_grad()
    def fit(self, array_NW: NDArray[np.floating], rows: NDArray[np.int64], *, name: str) -> None:
        """Set the mean and standard deviation from the given rows, computed in float64 in one pass.

        The standard deviation of constant columns is set to 1, so that these columns become 0 instead of amplified
        rounding errors. Non-finite features give non-finite statistics.
        """
        mean_W, square_W = column_moments(array_NW, rows)
        std_W = (square_W / len(rows)).sqrt()
        # Use relative bounds, since features may have any scale, and constant columns may vary by rounding.
        smallest_W = torch.maximum(1e-6 * std_W.max(), 1e-7 * mean_W.abs())
        self.mean.copy_(mean_W)
        self.std.copy_(torch.where(std_W > smallest_W, std_W, 1.0))


class UnitNorm(nn.Module):
    """Divide each row by its norm; zero rows stay zero."""

    def forward(self, x_BW: Tensor) -> Tensor:
        return divide_by_norm(x_BW)


def divide_by_norm(x_BW: Tensor) -> Tensor:
    # Divide by the largest entry first, so that squares of huge entries do not overflow.
    largest_B1 = x_BW.abs().amax(-1, keepdim=True)
    scaled_BW = x_BW / torch.where(largest_B1 > 0, largest_B1, 1.0)
    norm_B1 = torch.linalg.vector_norm(scaled_BW, dim=-1, keepdim=True)
    return scaled_BW / torch.where(norm_B1 > 0, norm_B1, 1.0)


def make_input_norm(input_norm: str, dim: int) -> nn.Module:
    """Return the input normalization as a module."""
    check_choice("input_norm", input_norm, get_args(InputNorm))
    if input_norm == "standardize":
        return Standardize(dim)
    return UnitNorm() if input_norm == "unit" else nn.Identity()
