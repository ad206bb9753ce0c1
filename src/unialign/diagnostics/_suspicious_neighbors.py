"""Find the nearest rows of one modality for the rows of another.

Shapes: `n` items, `D` dimension, `q` queries of a block, `G` rows of a gallery, `p` queries with a counterpart, `k`
neighbors.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

_BLOCK = 2048


@dataclass(eq=False)
class Neighbors:
    """Neighbors of the rows of modality a in modality m, as numbers of items.

    Attributes:
        query_n: numbers of the items with modality a.
        near_qk: numbers of the nearest items, except the query itself.
        cosine_qk: their cosines.
        percentile_n: (n,) fraction of the candidates that are nearer than the item's own row in m; NaN without one.
    """

    near_qk: Tensor
    cosine_qk: Tensor
    percentile_n: Tensor
    query_n: Tensor


def compare_rows(
    query_nD: Tensor, query_has_n: Tensor, gallery_nD: Tensor, gallery_has_n: Tensor, k: int, *, same: bool
) -> Neighbors:
    query_n, gallery_n = query_has_n.nonzero().flatten(), gallery_has_n.nonzero().flatten()
    gallery_GD = gallery_nD[gallery_n]
    place_n = torch.full((len(query_nD),), -1)
    place_n[gallery_n] = torch.arange(len(gallery_n))
    k = min(k, len(gallery_n) - 1)
    near, cosine = [], []
    percentile_n = torch.full((len(query_nD),), torch.nan)
    for block_q in torch.split(query_n, _BLOCK):
        score_qG = query_nD[block_q] @ gallery_GD.mT
        own_q = place_n[block_q]
        paired = (own_q >= 0).nonzero().flatten()
        true_p = score_qG[paired, own_q[paired]]
        if not same:
            # Scores in float32 tie with the true one within rounding.
            above_p = (score_qG[paired] > true_p[:, None] + 1e-6).sum(1)
            percentile_n[block_q[paired]] = above_p / max(1, len(gallery_n) - 1)
        score_qG[paired, own_q[paired]] = -2.0
        values_qk, places_qk = score_qG.topk(k, dim=1)
        near.append(gallery_n[places_qk])
        cosine.append(values_qk)
    return Neighbors(torch.cat(near), torch.cat(cosine), percentile_n, query_n)
