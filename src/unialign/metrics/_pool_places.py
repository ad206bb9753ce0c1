"""Expected sums over the first places of a ranking with ties. Shapes: `b` queries, `G` candidates, `k` places."""

import torch
from torch import Tensor

from unialign.ops import TIE_TOLERANCE


def dcg_weights(k: int) -> Tensor:
    """Return the (k,) weights 1 / log2(1 + place) of DCG (Jarvelin and Kekalainen, 2002)."""
    return 1 / torch.log2(torch.arange(2, k + 2, dtype=torch.float64))


def expected_sum(scores_bG: Tensor, flag_bG: Tensor, candidate_bG: Tensor, weights_k: Tensor) -> Tensor:
    """Return the (b,) expected sums of the weights of the places that flagged candidates have.

    Candidates whose scores differ by at most 1e-12 from the next are tied, and their order is random. Rows that are
    not candidates have no place.
    """
    weights_k = weights_k.to(torch.float64)[: scores_bG.shape[1]]
    k = len(weights_k)
    last = scores_bG.min() - 1 if scores_bG.numel() else 0.0
    scores_bG = torch.where(candidate_bG, scores_bG, last)
    top_bk, rows_bk = scores_bG.topk(k, dim=1)
    # Ties that end within the first k places: each candidate gets the mean weight of the places of its tie.
    opens_bk = torch.ones_like(top_bk, dtype=torch.bool)
    opens_bk[:, 1:] = top_bk[:, :-1] - top_bk[:, 1:] > TIE_TOLERANCE
    tie_bk = opens_bk.cumsum(1) - 1
    total_bk = torch.zeros_like(top_bk).scatter_add_(1, tie_bk, weights_k.expand_as(top_bk))
    size_bk = torch.zeros_like(top_bk).scatter_add_(1, tie_bk, torch.ones_like(top_bk))
    in_last_bk = tie_bk == tie_bk[:, -1:]
    flag_bk = (flag_bG & candidate_bG).gather(1, rows_bk) & ~in_last_bk
    mean_bk = (total_bk / size_bk.clamp(min=1)).gather(1, tie_bk)
    sum_b = (flag_bk * mean_bk).sum(1)
    # The last tie may continue beyond place k, so its members are counted among all candidates.
    highest_b1 = top_bk.gather(1, in_last_bk.to(torch.uint8).argmax(1, keepdim=True))
    member_bG = (scores_bG <= highest_b1) & (scores_bG >= top_bk[:, -1:] - TIE_TOLERANCE) & candidate_bG
    members_b = member_bG.sum(1)
    in_last_b = (in_last_bk * weights_k).sum(1)
    return sum_b + (member_bG & flag_bG).sum(1) * in_last_b / members_b.clamp(min=1)
