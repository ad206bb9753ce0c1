"""Compute the effective rank, the number of directions along which the rows of a space vary.

Shapes: `N` items, `D` dimension.
"""

from typing import Any

import torch
from torch import Tensor

from unialign.ops import unit_rows

# Rows with a smaller mean squared distance from their mean are treated as one point; float32 rounding gives about
# 1e-15.
_POINT = 1e-13


def effective_rank(x: Any) -> Tensor:
    """Return the effective rank exp(H(p)) with p_i = lambda_i / sum lambda, a float64 scalar.

    lambda are the eigenvalues of the covariance of the unit rows, which are proportional to the squared singular values
    of the centered rows. Roy & Vetterli (EUSIPCO 2007) use uncentered singular values; here the rows are centered,
    since the modality gap already measures the mean.

    Args:
        x: floating (N, D) tensor or array; rows are L2-normalized here.

    Returns:
        A value in [1, min(N - 1, D)]; also 1 for a space collapsed to one point.

    Raises:
        ShapeError: the input is empty or not 2-D.
        NonFiniteError: a row contains NaN or infinity, or has norm zero.
    """
    x_ND = unit_rows(x, "x")
    x_ND = x_ND - x_ND.mean(0)
    if float(x_ND.square().sum(1).mean()) < _POINT:
        return x_ND.new_ones(())
    # Use the smaller of the two Gram matrices, which have the same nonzero eigenvalues.
    gram = x_ND.mT @ x_ND if x_ND.shape[0] >= x_ND.shape[1] else x_ND @ x_ND.mT
    fraction = torch.linalg.eigvalsh(gram).clamp(min=0)
    fraction = fraction / fraction.sum()
    return torch.exp(-torch.special.xlogy(fraction, fraction).sum())
