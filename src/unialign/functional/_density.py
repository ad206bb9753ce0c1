"""Gaussian kernel densities of unit rows, as logarithms: the parts of every divergence (method: paper, KDE appendix).

Shapes: `N` points, `K` rows of a density, `D` width, `c` points of one tile. The kernel is exp(-|x - y|^2 / (2 tau^2)),
its constant (2 pi tau^2)^(-D/2) left out: with one bandwidth for all densities it cancels in what is built on it.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from unialign.ops import (
    Divided,
    KernelFunction,
    RowSelection,
    SelfPairs,
    log_kernel,
    log_row_sums,
    log_row_sums_between,
    row_tiles,
)

__all__ = ["SelfPairs", "log_densities", "log_mean_exp", "mean_neighbours", "median_bandwidth_of"]

# Rows closer than this are one point: in float32 the cosine of equal rows is off by 1e-7, a distance of 4e-4.
_SMALLEST_BANDWIDTH = 1e-2


def log_mean_exp(x: Tensor) -> Tensor:
    """log of the mean of exp(x) over the first dimension, which must not be empty."""
    return torch.logsumexp(x, 0) - math.log(len(x))


def log_densities(
    at_ND: Tensor,
    rows_KD: Tensor,
    *,
    bandwidth: float,
    items: tuple[Tensor, Tensor] | None = None,
    divided: Divided = None,
) -> Tensor:
    """(N,) log p(x), p(x) = mean_k exp(-|x - z_k|^2 / (2 tau^2)).

    Args:
        at_ND, rows_KD: unit rows; at least one each.
        bandwidth: tau > 0.
        items: item numbers (N,) and (K,). If given, a point's own item is left out of its mean; each point must then
            have another item among the rows.
        divided: how points and rows lie on the processes, if these share the work.
    """
    profile = KernelFunction("gaussian", bandwidth)
    if at_ND is rows_KD and items is None:
        everyone = RowSelection(len(rows_KD), len(rows_KD)) if divided is None else divided[1]
        sums_N = log_row_sums(rows_KD, profile=profile, members=everyone, self_pairs="included")
    else:
        sums_N = log_row_sums_between(at_ND, rows_KD, profile=profile, codes=items, divided=divided)
    if items is None:
        return sums_N - math.log(len(rows_KD))
    distinct, which_K = torch.unique(items[1], return_inverse=True)
    place_N = torch.searchsorted(distinct, items[0]).clamp(max=len(distinct) - 1)
    own_N = torch.where(distinct[place_N] == items[0], torch.bincount(which_K)[place_N], 0)
    return sums_N - torch.log((len(rows_KD) - own_N).to(sums_N.dtype))


@torch.no_grad()
def mean_neighbours(z_ND: Tensor, *, bandwidth: float, self_pairs: SelfPairs) -> float:
    """Effective number of rows behind a density: mean_i exp(entropy of p_i), p_ij = kappa_ij / sum_j kappa_ij.

    From 1 (one row outweighs all others) to the number of rows summed. 0 where no row has one to be summed.
    """
    if len(z_ND) <= (self_pairs == "excluded"):
        return 0.0
    total = 0.0
    for tile, logk_cK in _log_kernels(z_ND, z_ND, bandwidth):
        if self_pairs == "excluded":
            logk_cK.diagonal(tile.start).fill_(-torch.inf)
        logp_cK = torch.log_softmax(logk_cK, 1)
        p_cK = logp_cK.exp()
        # An entry of -inf has p = 0 and no part in the entropy.
        entropy_c = -torch.where(p_cK > 0, p_cK * logp_cK, 0.0).sum(1)
        total += float(entropy_c.exp().sum())
    return total / len(z_ND)


@torch.no_grad()
def median_bandwidth_of(z: Sequence[Tensor], *, limit: int = 512) -> float:
    """Median Euclidean distance of two different rows of the pooled sets, a number in [0.01, 2] without gradient.

    Rows that nearly coincide, and fewer than two of them, leave the smallest bandwidth, 0.01. Beyond `limit` rows,
    that many are taken at even steps through the sets, one after the other: the same rows each time.

    Args:
        z: (N, D) unit rows of each set; a set may be empty.
        limit: of 512 rows there are 130,000 distances, which take a few milliseconds of a training step.
    """
    pooled_ND = torch.cat(list(z))
    if len(pooled_ND) > limit:
        steps = torch.arange(limit, device=pooled_ND.device) * len(pooled_ND) // limit
        pooled_ND = pooled_ND[steps]
    if len(pooled_ND) < 2:
        return _SMALLEST_BANDWIDTH
    upper = torch.triu_indices(len(pooled_ND), len(pooled_ND), 1, device=pooled_ND.device)
    cosines = (pooled_ND @ pooled_ND.mT)[upper[0], upper[1]]
    # The distance falls with the cosine: one order serves both.
    middle = [float(cosines.kthvalue(k).values) for k in ((len(cosines) + 1) // 2, len(cosines) // 2 + 1)]
    distance = sum(math.sqrt(max(0.0, 2 - 2 * cosine)) for cosine in middle) / 2
    return max(distance, _SMALLEST_BANDWIDTH)


def _log_kernels(at_ND: Tensor, rows_KD: Tensor, bandwidth: float) -> Iterator[tuple[slice, Tensor]]:
    for tile in row_tiles(len(at_ND), len(rows_KD)):
        yield tile, log_kernel(at_ND[tile] @ rows_KD.mT, kernel="gaussian", temperature=bandwidth)
