"""What belongs to a kernel in the alignment: its scale, and powers of the distance (method: paper Eqs. 9, 10)."""

import torch
from torch import Tensor

from unialign.ops import WANG_ISOLA_T, Kernel

__all__ = ["distance_power", "matched_alignment_scale"]


def matched_alignment_scale(kernel: Kernel, temperature: float) -> float:
    """The factor of |x-y|^2 in -log kappa: with it the two terms balance (M = 2 `clip` is InfoNCE's own weight)."""
    if kernel == "clip":
        return 1 / (2 * temperature)
    if kernel == "wang_isola":
        return WANG_ISOLA_T
    return 1 / (2 * temperature**2)


def distance_power(square: Tensor, alpha: float) -> Tensor:
    """|x - y|^alpha from |x - y|^2, with gradient 0, not infinity, where the points coincide; alpha >= 1."""
    if alpha == 2:
        return square
    apart = square > 0
    return torch.where(apart, torch.where(apart, square, 1.0) ** (alpha / 2), 0.0)
