"""Implement objectives on pairs of modalities: Sigmoid, CS-Aligner, ModGap, CUA, Align+Uniform.

(m, n) is a pair of modalities, (i, j) are items, and tau is the temperature. A pair uses the items that have both
modalities (decision 3).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from reference._core import alignment, centroids, infonce, uniformity
from reference._densities import cauchy_schwarz, holder, median_bandwidth, mmd2
from reference._rows import Ids, Rows, both, mean, pairs_of, tuple_of

__all__ = ["align_uniform", "cs_aligner", "cua", "modgap", "sigmoid"]


def _differ(ids: Ids, i: int, j: int) -> bool:
    return i != j and (ids is None or ids[i] != ids[j])


def sigmoid(rows: Rows, *, anchor: str, scale: float, bias: float, ids: Ids = None) -> Tensor:
    """Return the mean over pairs of -(1/B) sum_i [log sigma(l_ii) + sum_j log sigma(-l_ij)], l = scale * cos + bias."""
    losses = []
    for m, n in pairs_of(rows, anchor):
        items = both(rows, m, n)
        total = torch.zeros((), dtype=torch.float64)
        for i, x, y in items:
            total = total + torch.log1p(torch.exp(-(scale * (x * y).sum() + bias)))
            for j, _, other in items:
                if _differ(ids, i, j):
                    total = total + torch.log1p(torch.exp(scale * (x * other).sum() + bias))
        if items:
            losses.append(total / len(items))
    return mean(losses)


def cs_aligner(
    rows: Rows,
    *,
    anchor: str,
    tau: float,
    contrast_weight: float,
    divergence_weight: float,
    divergence: str,
    bandwidth: float | str,
    ids: Ids = None,
) -> Tensor:
    """Return InfoNCE plus the mean divergence over the pairs of modalities with rows, even without common items."""
    sets = {m: [x for x in rows[m] if x is not None] for m in rows}
    still = [[x.detach() for x in found] for found in sets.values()]
    width = median_bandwidth(still) if isinstance(bandwidth, str) else bandwidth
    total = contrast_weight * infonce(rows, anchor=anchor, tau=tau, ids=ids)
    if divergence == "holder":
        return total + divergence_weight * holder(rows, tau=width, estimator="pooled")
    measure = {"cauchy_schwarz": cauchy_schwarz, "mmd": mmd2}[divergence]
    values = [measure(sets[m], sets[n], tau=width) for m, n in pairs_of(rows, anchor) if sets[m] and sets[n]]
    return total + divergence_weight * mean(values)


def _potential(rows: Sequence[Tensor | None], t: float, ids: Ids) -> Tensor | None:
    """Return log mean_{i != j} exp(-t |x - y|^2), the uniformity with a Gaussian kernel of 2 tau^2 = 1 / t."""
    return uniformity(rows, kernel="gaussian", tau=(1 / (2 * t)) ** 0.5, reduction="outer_log", ids=ids)


def modgap(rows: Rows, *, anchor: str, tau: float, contrast_weight: float, t: float, ids: Ids = None) -> Tensor:
    """Return L_ATP + L_CU + InfoNCE, with the centroids of items with at least two modalities (decision 4)."""
    middles = [c if len(tuple_of(rows, i)) >= 2 else None for i, c in enumerate(centroids(rows))]
    parts = [alignment(rows, anchor=anchor), _potential(middles, t, ids)]
    total = contrast_weight * infonce(rows, anchor=anchor, tau=tau, ids=ids)
    for part in parts:
        total = total if part is None else total + part
    return total


def cua(
    rows: Rows, *, anchor: str, tau: float, contrast_weight: float, t: float, cross_term: str, ids: Ids = None
) -> Tensor:
    """Return InfoNCE + alignment + mean over pairs of (U_m + U_n) / 2, plus the mean cross term for "xu"."""
    total = contrast_weight * infonce(rows, anchor=anchor, tau=tau, ids=ids)
    distances = alignment(rows, anchor=anchor)
    if distances is not None:
        total = total + distances
    halves, crosses = [], []
    for m, n in pairs_of(rows, anchor):
        u_m, u_n = _potential(rows[m], t, ids), _potential(rows[n], t, ids)
        if u_m is not None and u_n is not None:
            halves.append((u_m + u_n) / 2)
        items = both(rows, m, n)
        kernels = [torch.exp(-t * ((x - y) ** 2).sum()) for i, x, _ in items for j, _, y in items if _differ(ids, i, j)]
        if kernels and cross_term == "xu":
            crosses.append(torch.log(mean(kernels)))
    return total + mean(halves) + mean(crosses)


def align_uniform(
    rows: Rows, *, anchor: str, alpha: float, t: float, uniformity_weight: float, ids: Ids = None
) -> Tensor:
    """Return the mean |x - y|^alpha over true pairs + weight * mean uniformity of the modalities (decision 6)."""
    distances = [(x - y).norm() ** alpha for m, n in pairs_of(rows, anchor) for _, x, y in both(rows, m, n)]
    spreads = [_potential(rows[m], t, ids) for m in rows]
    return mean(distances) + uniformity_weight * mean([u for u in spreads if u is not None])
