"""Measure how far two modalities agree on the nearest neighbors of an item, and on the ranking of all other items.

Shapes: `M` modalities, `N` items, `D` dimension, `q` items of a tile, `k` neighbors.
"""

from itertools import combinations

import torch
from torch import Tensor

from unialign.ops import TIE_TOLERANCE, row_tiles

Pair = tuple[int, int]


@torch.no_grad()
def agreements(z_MND: Tensor, ids_N: Tensor, k: int) -> dict[Pair, tuple[Tensor, Tensor]]:
    """Return, for each pair of modalities, the neighbor agreement and the rank correlation of each item, (N,) float64.

    The neighbor agreement of item i is `sum_j w_a(i, j) w_b(i, j) / k_i`, where `w_a(i, j)` is the probability that j
    is among the `k_i = min(k, number of other items)` items with the highest cosine to i in modality a, if tied items
    are in random order. Without ties, the sum is the fraction of common neighbors. The rank correlation is Spearman's
    between the cosines of i to all other items in both modalities, with average ranks for ties; it is 0 if all are
    tied. Items with the same id as i are excluded. Both values are NaN if no other items are left.
    """
    modalities, items = z_MND.shape[:2]
    pairs = list(combinations(range(modalities), 2))
    found = {pair: (torch.empty(items).double(), torch.empty(items).double()) for pair in pairs}
    z_MND = z_MND.double()
    for part in row_tiles(items, modalities * items):
        other_qN = ids_N[part, None] != ids_N
        others_q = other_qN.sum(1)
        places_q = others_q.clamp(max=k)
        members, ranks = [], []
        for z_ND in z_MND:
            s_qN = z_ND[part] @ z_ND.mT
            members.append(membership(s_qN, other_qN, places_q))
            ranks.append(_centered(average_ranks(s_qN, other_qN), other_qN))
        for (a, b), (agreement_N, correlation_N) in found.items():
            agreement_N[part] = (members[a] * members[b]).sum(1) / places_q.double()
            product_q = (ranks[a] * ranks[b]).sum(1)
            size_q = (ranks[a].square().sum(1) * ranks[b].square().sum(1)).sqrt()
            correlation_q = torch.where(size_q > 0, product_q / size_q.clamp(min=1e-300), 0.0)
            correlation_N[part] = torch.where(others_q > 0, correlation_q, torch.nan)
    return found


def membership(s_qN: Tensor, candidate_qN: Tensor, places_q: Tensor) -> Tensor:
    """Return the (q, N) probability that a candidate is among the first `places_q` of its row, with ties in random
    order.
    """
    s_qN = torch.where(candidate_qN, s_qN, -torch.inf)
    most = int(places_q.max())
    if most == 0:
        return torch.zeros_like(s_qN)
    last_q1 = s_qN.topk(most, dim=1).values.gather(1, (places_q - 1).clamp(min=0)[:, None])
    above_qN = s_qN > last_q1 + TIE_TOLERANCE
    tied_qN = candidate_qN & ~above_qN & (s_qN >= last_q1 - TIE_TOLERANCE)
    share_q = (places_q - above_qN.sum(1)).double() / tied_qN.sum(1).clamp(min=1)
    return above_qN + tied_qN * share_q[:, None]


def average_ranks(s_qN: Tensor, candidate_qN: Tensor) -> Tensor:
    """Return (q, N) ascending ranks of the candidates from 1; tied candidates share the mean of their ranks."""
    sorted_qN, order_qN = torch.where(candidate_qN, s_qN, torch.inf).sort(1)
    opens_qN = torch.ones_like(sorted_qN, dtype=torch.bool)
    # The difference of two infinite entries is NaN, and the comparison with NaN is False, so these entries are tied.
    opens_qN[:, 1:] = sorted_qN[:, 1:] - sorted_qN[:, :-1] > TIE_TOLERANCE
    block_qN = opens_qN.cumsum(1) - 1
    place_qN = torch.arange(1, s_qN.shape[1] + 1, dtype=torch.float64, device=s_qN.device).expand_as(s_qN)
    sum_qN = torch.zeros_like(s_qN).scatter_add_(1, block_qN, place_qN)
    size_qN = torch.zeros_like(s_qN).scatter_add_(1, block_qN, torch.ones_like(s_qN))
    return torch.empty_like(s_qN).scatter_(1, order_qN, (sum_qN / size_qN.clamp(min=1)).gather(1, block_qN))


def _centered(ranks_qN: Tensor, candidate_qN: Tensor) -> Tensor:
    ranks_qN = torch.where(candidate_qN, ranks_qN, 0.0)
    mean_q1 = ranks_qN.sum(1, keepdim=True) / candidate_qN.sum(1, keepdim=True).clamp(min=1)
    return torch.where(candidate_qN, ranks_qN - mean_q1, 0.0)
