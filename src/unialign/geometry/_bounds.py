"""Evaluate the bounds on conflicts of Propositions 2.2 and 2.3 from measured quantities.

Each bound is computed separately for every value of K_i and averaged over the items. If all modalities are present, the
bound is the paper's formula.

Shapes: `K` modalities other than the anchor, of which item i has K_i (the paper's M - 1), `B` items, `D` dimension.
"""

from collections.abc import Iterator

import torch
from torch import Tensor


def chi_lower_bound(pull_KBD: Tensor, pair_KB: Tensor) -> Tensor:
    """Return the lower bound 1 - sqrt(sum_n w_n^2 + sum_{n != n'} w_n w_n' mu_nn') of E[chi] (Proposition 2.3).

    mu is the mean cosine of two positives of an item, and w are the weights of the present positives, normalized to sum
    to 1. For equal weights the bound is 1 - sqrt((1 + (K - 1) mu) / K).

    Args:
        pull_KBD: positives scaled by their weights; ignored where absent.
        pair_KB: mask of present positives.

    Returns:
        A scalar in [0, 1]; NaN if there are no items; 0 if each item has one positive.
    """
    pull_KBD = torch.where(pair_KB[..., None], pull_KBD, 0.0)
    reach_B = torch.linalg.vector_norm(pull_KBD, dim=-1).sum(0)
    # |sum w z|^2 = sum w^2 + sum w w' mu, which avoids a loop over pairs.
    resultant_B = (pull_KBD.sum(0) / torch.where(reach_B > 0, reach_B, 1.0)[:, None]).square().sum(-1)
    parts = [(len(rows), 1 - resultant_B[rows].mean().sqrt()) for _, rows in _by_count(pair_KB.sum(0))]
    return _average(parts, pull_KBD).clamp(min=0.0)


def zeta_lower_bound(c_KB: Tensor, residual_KBD: Tensor, known_KB: Tensor) -> Tensor:
    """Return the lower bound (1 + C / (K c_0^2))^(-1/2) of E[zeta] (Proposition 2.2, finite M).

    c_0 is the smallest c, and C the mean |residual|^2. The bound assumes zero-mean residuals that are independent
    between modalities; see `residual_correlation`.

    Returns:
        A scalar in (0, 1]; NaN if no c is defined or any c is not positive.
    """
    smallest = torch.where(known_KB, c_KB, torch.inf).min()
    if not bool(known_KB.any()) or float(smallest) <= 0:
        return c_KB.new_full((), torch.nan)
    squared = residual_KBD.square().sum(-1)[known_KB].mean()
    ratio = squared / smallest.square()
    return _average([(len(rows), (1 + ratio / n).rsqrt()) for n, rows in _by_count(known_KB.sum(0))], c_KB)


def expected_zeta(c_KB: Tensor, residual_KBD: Tensor, known_KB: Tensor) -> Tensor:
    """Return the estimate (1 + (C / c^2) (1 + (K - 1) rho) / K)^(-1/2) of E[zeta] for correlated residuals.

    c is the mean, C the mean |residual|^2, and rho the `residual_correlation`. The estimate extends Proposition 2.2 by
    |sum_n e_n|^2 = K C + K (K - 1) rho C. As K grows, the estimate tends to (1 + rho C / c^2)^(-1/2), which is below 1
    for rho > 0. The estimate is not a bound, since it assumes that c and |sum_n e_n| vary little.

    Returns:
        A scalar in [0, 1]; NaN if no c is defined or the mean of c is not positive.
    """
    mean_c = c_KB[known_KB].mean()
    if not bool(known_KB.any()) or float(mean_c) <= 0:
        return c_KB.new_full((), torch.nan)
    ratio = residual_KBD.square().sum(-1)[known_KB].mean() / mean_c.square()
    rho = residual_correlation(residual_KBD, known_KB).nan_to_num(nan=0.0)
    parts = []
    for count, rows in _by_count(known_KB.sum(0)):
        parts.append((len(rows), (1 + ratio * ((1 + (count - 1) * rho) / count).clamp(min=0.0)).rsqrt()))
    return _average(parts, c_KB)


def residual_correlation(residual_KBD: Tensor, known_KB: Tensor) -> Tensor:
    """Return mean_{n != n'} <e_n, e_n'> / mean_n |e_n|^2 over all items; NaN if there are no pairs."""
    e_KBD = torch.where(known_KB[..., None], residual_KBD, 0.0)
    squared_B = e_KBD.square().sum((0, -1))
    cross_B = e_KBD.sum(0).square().sum(-1) - squared_B
    count_B = known_KB.sum(0).double()
    pairs = (count_B * (count_B - 1)).sum()
    # 0 / 0 gives the documented NaN.
    return (cross_B.sum() / pairs) / (squared_B.sum() / count_B.sum())


def _by_count(count_B: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield each nonzero count and the items that have this count."""
    for count in range(1, int(count_B.max()) + 1 if len(count_B) else 1):
        rows = (count_B == count).nonzero().flatten()
        if len(rows):
            yield count, rows


def _average(parts: list[tuple[int, Tensor]], like: Tensor) -> Tensor:
    if not parts:
        return like.new_full((), torch.nan)
    total = sum(items for items, _ in parts)
    return torch.stack([items / total * value for items, value in parts]).sum()
