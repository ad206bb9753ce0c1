"""Compute the logs of Gaussian kernel densities of unit rows, for divergences (paper, KDE appendix).

The kernel is exp(-|x - y|^2 / (2 tau^2)). The normalizing constant (2 pi tau^2)^(-D/2) is omitted because it cancels in
every divergence if all densities share one bandwidth.

Shapes: `N` points, `K` rows of a density, `D` dimension, `c` points of one tile.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from unialign.functional._value_order import in_value_order
from unialign.ops import (
    KernelFunction,
    RowSelection,
    SelfPairs,
    ShardLayouts,
    log_row_sums,
    log_row_sums_between,
    row_tiles,
)

# Rows closer than this are treated as one point. The float32 cosine of equal rows has an error of 1e-7, which
# corresponds to a distance of 4e-4.
_SMALLEST_BANDWIDTH = 1e-2


def log_mean_exp(x: Tensor) -> Tensor:
    return torch.logsumexp(x, 0) - math.log(len(x))


def log_densities(
    at_ND: Tensor,
    rows_KD: Tensor,
    *,
    bandwidth: float,
    items: tuple[Tensor, Tensor] | None = None,
    layouts: ShardLayouts = None,
) -> Tensor:
    """Log of p(x) = mean_k exp(-|x - z_k|^2 / (2 tau^2)), (N,). With item indices, the mean at each point excludes the
    rows of the same item.
    """
    kernel = KernelFunction("gaussian", bandwidth)
    if at_ND is rows_KD and items is None:
        whole = RowSelection(len(rows_KD)) if layouts is None else layouts[1]
        sums_N = log_row_sums(rows_KD, kernel=kernel, selection=whole, self_pairs="included")
    else:
        sums_N = log_row_sums_between(at_ND, rows_KD, kernel=kernel, codes=items, layouts=layouts)
    if items is None:
        return sums_N - math.log(len(rows_KD))
    distinct, which_K = torch.unique(items[1], return_inverse=True)
    index_N = torch.searchsorted(distinct, items[0]).clamp(max=len(distinct) - 1)
    own_N = torch.where(distinct[index_N] == items[0], torch.bincount(which_K)[index_N], 0)
    return sums_N - torch.log((len(rows_KD) - own_N).to(sums_N.dtype))


@torch.no_grad()
def mean_neighbors(z_ND: Tensor, *, bandwidth: float, self_pairs: SelfPairs) -> float:
    """mean_i exp(entropy of p_i) with p_ij = kappa_ij / sum_j kappa_ij, from 1 (one row outweighs all others) to the
    number of rows.
    """
    if len(z_ND) <= (self_pairs == "excluded"):
        return 0.0
    total = 0.0
    kernel = KernelFunction("gaussian", bandwidth)
    for tile in row_tiles(len(z_ND), len(z_ND)):
        logk_cK = kernel.log(z_ND[tile] @ z_ND.mT)
        if self_pairs == "excluded":
            logk_cK.diagonal(tile.start).fill_(-torch.inf)
        logp_cK = torch.log_softmax(logk_cK, 1)
        p_cK = logp_cK.exp()
        # An entry of -inf has p = 0 and contributes nothing to the entropy.
        entropy_c = -torch.where(p_cK > 0, p_cK * logp_cK, 0.0).sum(1)
        total += float(entropy_c.exp().sum())
    return total / len(z_ND)


@torch.no_grad()
def median_bandwidth_of(z: Sequence[Tensor], *, limit: int = 512) -> float:
    """Median distance between two rows of the pooled sets, in [0.01, 2], without gradient. If there are more than
    `limit` rows, a fixed, evenly spaced subset is used.
    """
    pooled_ND = torch.cat(in_value_order(*z))
    if len(pooled_ND) > limit:
        steps = torch.arange(limit, device=pooled_ND.device) * len(pooled_ND) // limit
        pooled_ND = pooled_ND[steps]
    if len(pooled_ND) < 2:
        return _SMALLEST_BANDWIDTH
    upper = torch.triu_indices(len(pooled_ND), len(pooled_ND), 1, device=pooled_ND.device)
    cosines = (pooled_ND @ pooled_ND.mT)[upper[0], upper[1]]
    # The median distance belongs to the median cosine, since distances decrease with cosines.
    middle = [float(cosines.kthvalue(k).values) for k in ((len(cosines) + 1) // 2, len(cosines) // 2 + 1)]
    distance = sum(math.sqrt(max(0.0, 2 - 2 * cosine)) for cosine in middle) / 2
    return max(distance, _SMALLEST_BANDWIDTH)
