"""Expected sums over the top k ranks of a ranking with ties.

Shapes: `b` queries, `G` candidates, `k` ranks.
"""

import torch
from torch import Tensor

from unialign.ops import TIE_TOLERANCE


def dcg_weights(k: int) -> Tensor:
    """Return 1 / log2(1 + rank) for ranks 1 to k (Jarvelin and Kekalainen, 2002)."""
    return 1 / torch.log2(torch.arange(2, k + 2, dtype=torch.float64))


class FirstPlaces:
    """Top k candidates of each query. Candidates whose scores differ by at most 1e-12 are tied, in random order."""

    def __init__(self, scores_bG: Tensor, candidate_bG: Tensor, k: int) -> None:
        self.candidate_bG, self.k = candidate_bG, min(k, scores_bG.shape[1])
        scores_bG = torch.where(candidate_bG, scores_bG, scores_bG.min() - 1)
        top_bk, self.rows_bk = scores_bG.topk(self.k, dim=1)
        opens_bk = torch.ones_like(top_bk, dtype=torch.bool)
        opens_bk[:, 1:] = top_bk[:, :-1] - top_bk[:, 1:] > TIE_TOLERANCE
        self.tie_bk = opens_bk.cumsum(1) - 1
        self.size_bk = torch.zeros_like(top_bk).scatter_add_(1, self.tie_bk, torch.ones_like(top_bk)).clamp_(min=1)
        # The last tie may continue beyond rank k, so the members of this tie are counted among all candidates.
        self.in_last_bk = self.tie_bk == self.tie_bk[:, -1:]
        highest_b1 = top_bk.gather(1, self.in_last_bk.to(torch.uint8).argmax(1, keepdim=True))
        self.member_bG = (scores_bG >= top_bk[:, -1:] - TIE_TOLERANCE) & (scores_bG <= highest_b1) & candidate_bG
        self.members_b = self.member_bG.sum(1).clamp(min=1)

    def sum(self, flag_bG: Tensor, weights_k: Tensor) -> Tensor:
        """Return the expected sum of the weights of the ranks of flagged candidates."""
        weights_bk = weights_k.to(torch.float64)[: self.k].expand_as(self.size_bk)
        # Each candidate gets the mean weight of the ranks of its tie.
        total_bk = torch.zeros_like(self.size_bk).scatter_add_(1, self.tie_bk, weights_bk)
        mean_bk = (total_bk / self.size_bk).gather(1, self.tie_bk)
        flag_bk = (flag_bG & self.candidate_bG).gather(1, self.rows_bk) & ~self.in_last_bk
        last_b = (self.in_last_bk * weights_bk).sum(1)
        return (flag_bk * mean_bk).sum(1) + (self.member_bG & flag_bG).sum(1) * last_b / self.members_b
