"""What happens to features before the first layer. Shapes: `B` rows, `W` width of a modality."""

from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unialign._checks import check_choice
from unialign.config import InputNorm

__all__ = ["Standardize", "column_statistics", "make_inputs"]

_CHUNK_ROWS = 8192


class Standardize(nn.Module):
    """Subtract a mean and divide by a standard deviation, column by column; both are buffers, saved with the space."""

    mean: Tensor
    std: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    def forward(self, x_BW: Tensor) -> Tensor:
        return (x_BW - self.mean) / self.std


class UnitRows(nn.Module):
    """Divide each row by its norm; a row of zeros stays zeros."""

    def forward(self, x_BW: Tensor) -> Tensor:
        # By the largest entry first, so that the squares of huge features stay finite.
        largest_B1 = x_BW.abs().amax(-1, keepdim=True)
        scaled_BW = x_BW / torch.where(largest_B1 > 0, largest_B1, 1.0)
        norm_B1 = torch.linalg.vector_norm(scaled_BW, dim=-1, keepdim=True)
        return scaled_BW / torch.where(norm_B1 > 0, norm_B1, 1.0)


def make_inputs(inputs: str, width: int) -> nn.Module:
    """The module of a kind of input handling."""
    check_choice("input_norm", inputs, get_args(InputNorm))
    if inputs == "standardize":
        return Standardize(width)
    return UnitRows() if inputs == "unit" else nn.Identity()


def column_statistics(array_NW: NDArray[np.floating], rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the chosen rows, in float64, two passes, without holding them all.

    A column that does not vary gets deviation 1, so that it becomes a column of zeros rather than noise blown up.
    """
    pieces = [rows[start : start + _CHUNK_ROWS] for start in range(0, len(rows), _CHUNK_ROWS)]
    # Infinite features are for the caller to refuse, by row; here they would only add a warning.
    with np.errstate(invalid="ignore", over="ignore"):
        mean_W = sum(array_NW[piece].astype(np.float64).sum(0) for piece in pieces) / len(rows)
        square_W = sum(((array_NW[piece].astype(np.float64) - mean_W) ** 2).sum(0) for piece in pieces)
    std_W = np.sqrt(square_W / len(rows))
    # Relative floors: features of any scale are welcome, and a constant column has a deviation of rounding only.
    floor_W = np.maximum(1e-6 * std_W.max(), 1e-7 * np.abs(mean_W))
    std_W = np.where(std_W > floor_W, std_W, 1.0)
    return torch.from_numpy(np.asarray(mean_W)).float(), torch.from_numpy(std_W).float()
