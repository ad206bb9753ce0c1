"""Normalize rows that may have no direction."""

import torch
from torch import Tensor


def unit(x_nD: Tensor) -> Tensor:
    """Normalize rows; a row of zeros, such as a row equal to a subtracted mean, gets a constant direction."""
    norm_n1 = torch.linalg.vector_norm(x_nD, dim=1, keepdim=True)
    return torch.where(norm_n1 > 1e-12, x_nD / norm_n1.clamp(min=1e-12), torch.ones_like(x_nD) / x_nD.shape[1] ** 0.5)
