"""Modality gap and cosines of true pairs, in float64.

Shapes: `N` items, `D` dimension, `R` bootstrap resamples.
"""

from typing import Any

import torch
from torch import Tensor

from unialign.batch import as_dense
from unialign.errors import ShapeError
from unialign.geometry._validation import unit_pair


def modality_gap(x: Any, y: Any) -> Tensor:
    """Return the modality gap |mean x - mean y| of unit rows (Liang et al., NeurIPS 2022), a float64 scalar in [0, 2].

    For two sets of N unrelated rows without a gap, the result is about sqrt(2 / N). Use `modality_gap_debiased` to
    compare spaces.

    Args:
        x, y: floating (N, D) tensors or arrays; N may differ.

    Raises:
        ShapeError: an input is empty or not 2-D, or the dimensions differ.
        NonFiniteError: a row contains NaN or infinity, or has norm zero.
    """
    x_ND, y_ND = unit_pair(x, y, paired=False)
    gap: Tensor = torch.linalg.vector_norm(x_ND.mean(0) - y_ND.mean(0))
    return gap


def modality_gap_debiased(x: Any, y: Any, *, weights: Tensor | None = None) -> Tensor:
    """Return the modality gap corrected for sampling noise, a float64 scalar in [0, 2].

    The squared gap is |mean(x - y)|^2 - tr(Cov(x - y)) / N, clipped at 0, with Cov normalized by N - 1. Before
    clipping, this is the U-statistic mean_{i != j} <d_i, d_j> of the differences d = x - y, which is unbiased for the
    squared gap of the population. With weights, the formula is (|sum w d|^2 - sum w^2 |d|^2) / ((sum w)^2 - sum w^2).
    Pairs of copies of the same item in a bootstrap resample are excluded, since such pairs would reintroduce the bias.

    Args:
        x, y: floating (N, D) tensors or arrays with N at least 2; row i of each belongs to item i.
        weights: (R, N) item weights, see `unialign.metrics.resample_weights`.

    Returns:
        A scalar, or (R,) with weights; NaN for resamples with fewer than two distinct items.

    Raises:
        ShapeError, NonFiniteError: as in `modality_gap`; also ShapeError for unequal N or fewer than two items.
    """
    x_ND, y_ND = unit_pair(x, y, paired=True)
    items = len(x_ND)
    if items < 2:
        raise ShapeError("the debiased modality gap needs at least two items, got one")
    weights_RN = x_ND.new_ones(1, items)
    if weights is not None:
        weights_RN = as_dense(weights, "weights", f"numbers of shape (resamples, {items})").to(x_ND)
    if weights_RN.ndim != 2 or weights_RN.shape[1] != items:
        raise ShapeError(f"weights have shape {tuple(weights_RN.shape)}; expected (resamples, {items})")
    d_ND = x_ND - y_ND
    squared_RN = weights_RN.square()
    cross_R = (weights_RN @ d_ND).square().sum(1) - squared_RN @ d_ND.square().sum(1)
    gap_R = (cross_R / (weights_RN.sum(1).square() - squared_RN.sum(1))).clamp(min=0).sqrt()
    return gap_R if weights is not None else gap_R[0]


def true_pair_cosine(x: Any, y: Any) -> Tensor:
    """Return the mean of `true_pair_cosines`, a float64 scalar in [-1, 1]."""
    return true_pair_cosines(x, y).mean()


def true_pair_cosines(x: Any, y: Any) -> Tensor:
    """Return the (N,) float64 cosines between row i of x and row i of y.

    Raises:
        ShapeError, NonFiniteError: as in `modality_gap`; also ShapeError for unequal N.
    """
    x_ND, y_ND = unit_pair(x, y, paired=True)
    return (x_ND * y_ND).sum(1)
