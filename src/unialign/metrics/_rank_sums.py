"""Sum precisions (average precision) and discounted gains (nDCG) over the ranks of positives, with cut-offs and ties.

Shapes: `q` queries of a tile, `G` gallery rows, `P` positives of a tile, `C` cut-offs.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Ties = Literal["expected", "optimistic", "pessimistic"]
# Cut-offs; None is the whole gallery.
Cutoffs = Sequence[int | None]


class Tables:
    """Cumulative sums over ranks, so that the mean over any block takes two lookups."""

    def __init__(self, gallery: int) -> None:
        rank_G = torch.arange(1, gallery + 1, dtype=torch.float64)
        zero = torch.zeros(1, dtype=torch.float64)
        self.harmonic = torch.cat([zero, (1 / rank_G).cumsum(0)])
        self.discount = torch.cat([zero, (1 / torch.log2(1 + rank_G)).cumsum(0)])

    def single(self, above: Tensor, tied: Tensor, ties: Ties, cutoffs: Cutoffs) -> Tensor:
        """Return the sums of `block` for queries with one positive, (C, 2, Q)."""
        found, one = torch.zeros_like(above), torch.ones_like(above)
        return torch.stack([torch.stack(self.block(above, tied + 1, found, one, ties, k)) for k in cutoffs])

    def ideal(self, positives_q: Tensor, gain_qG: Tensor | None, cutoffs: Cutoffs) -> Tensor:
        """Return the discounted gain under the best possible ranking (the ideal DCG), (C, q)."""
        size = len(self.discount) - 1
        if gain_qG is None:
            return torch.stack([self.discount[positives_q.clamp(max=size if k is None else k)] for k in cutoffs])
        sums_qG = (gain_qG.sort(dim=1, descending=True).values.cpu() * self.discount.diff()).cumsum(1)
        return torch.stack([sums_qG[:, (size if k is None else min(k, size)) - 1] for k in cutoffs])

    def block(
        self, before: Tensor, size: Tensor, found: Tensor, relevant: Tensor, ties: Ties, k: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the sums of precisions and of discounted gains at the positives of a tie block within the top k.

        Args:
            before: c, number of candidates above the block.
            size: t, number of candidates in the block.
            found: R, number of positives above the block.
            relevant: r >= 1, number of positives in the block.
            ties: order within the block.
            k: cut-off; None for the whole gallery.

        For positives at known ranks c'+1..c'+r, the precision at the i-th is (R + i) / (c' + i). In expectation over
        orders, rank c + i has a positive with probability r / t, and then (i - 1)(r - 1) / (t - 1) positives of the
        block are above it on average (McSherry & Najork 2008, section 3).
        """
        if ties == "expected":
            start, end = before, before + size
        else:
            start = before if ties == "optimistic" else before + size - relevant
            end = start + relevant
        low, high = (start, end) if k is None else (start.clamp(max=k), end.clamp(max=k))
        inverse = self.harmonic[high] - self.harmonic[low]
        gain = self.discount[high] - self.discount[low]
        # Convert to float64, since dividing integer tensors would give float32.
        c, t, found_, r = start.double(), (end - start).double(), found.double(), relevant.double()
        kept = (high - low).double()
        spread = torch.where(t > 1, (r - 1) / (t - 1), 0.0)
        # sum_i (i - 1) / (c + i) = kept - (c + 1) * sum_i 1 / (c + i). In a block of positives only, spread = 1.
        precision = (r / t) * ((found_ + 1) * inverse + spread * (kept - (c + 1) * inverse))
        # Without ties, the closed form would only add rounding errors.
        return torch.where(t == 1, kept * (found_ + 1) / (c + 1), precision), (r / t) * gain


def ranked_sums(
    s_qG: Tensor,
    is_positive_qG: Tensor,
    gain_qG: Tensor | None,
    tables: Tables,
    ties: Ties,
    tolerance: float,
    cutoffs: Cutoffs,
) -> Tensor:
    """Return sums of precisions and of discounted gains over all positives of each query, (C, 2, q)."""
    queries, gallery = s_qG.shape
    s_qG, order_qG = s_qG.sort(dim=1, descending=True)
    is_positive_qG = is_positive_qG.gather(1, order_qG)
    rank_G = torch.arange(gallery, device=s_qG.device)
    # The difference of equal infinite scores is NaN, and comparisons with NaN are False, so these scores are treated as
    # tied.
    opens_qG = torch.ones_like(is_positive_qG)
    opens_qG[:, 1:] = (s_qG[:, :-1] - s_qG[:, 1:]) > tolerance
    start_qG = torch.where(opens_qG, rank_G, 0).cummax(1).values
    closes_qG = torch.full_like(order_qG, gallery)
    closes_qG[:, :-1] = torch.where(opens_qG[:, 1:], rank_G[1:], gallery)
    end_qG = closes_qG.flip(1).cummin(1).values.flip(1)
    found_qG = torch.nn.functional.pad(is_positive_qG.cumsum(1), (1, 0))

    query_P, rank_P = is_positive_qG.nonzero(as_tuple=True)
    before_P, end_P = start_qG[query_P, rank_P], end_qG[query_P, rank_P]
    found_P = found_qG[query_P, before_P]
    relevant_P = (found_qG[query_P, end_P] - found_P).cpu()
    query_P = query_P.cpu()
    before_P, size_P, found_P = before_P.cpu(), (end_P - before_P).cpu(), found_P.cpu()
    sums = torch.zeros(len(cutoffs), 2, queries, dtype=torch.float64)
    for sum_2q, k in zip(sums, cutoffs, strict=True):
        precision_P, block_gain_P = tables.block(before_P, size_P, found_P, relevant_P, ties, k)
        # Each of the r positives of a tie block has the sum of the whole block, so each contributes 1 / r of this sum.
        sum_2q[0].index_add_(0, query_P, precision_P / relevant_P)
        sum_2q[1].index_add_(0, query_P, block_gain_P / relevant_P)
    if gain_qG is not None:
        sums[:, 1] = _graded_gains(gain_qG.gather(1, order_qG), start_qG, end_qG, tables, ties, cutoffs)
    return sums


def _graded_gains(
    gain_qG: Tensor, start_qG: Tensor, end_qG: Tensor, tables: Tables, ties: Ties, cutoffs: Cutoffs
) -> Tensor:
    """Return discounted gains of ranked candidates, (C, q); the block of candidate g has ranks start + 1..end."""
    gallery = gain_qG.shape[1]
    discount = tables.discount.to(gain_qG.device)
    if ties != "expected":
        # Within a block, the largest gains come first or last.
        order_qG = gain_qG.argsort(dim=1, descending=ties == "optimistic", stable=True)
        order_qG = order_qG.gather(1, start_qG.gather(1, order_qG).argsort(dim=1, stable=True))
        gain_qG = gain_qG.gather(1, order_qG)
        rank_G = torch.arange(gallery, device=gain_qG.device)
        start_qG, end_qG = rank_G.expand_as(gain_qG), (rank_G + 1).expand_as(gain_qG)
    sums = []
    for k in cutoffs:
        top = gallery if k is None else min(k, gallery)
        block_qG = discount[end_qG.clamp(max=top)] - discount[start_qG.clamp(max=top)]
        sums.append((gain_qG * block_qG / (end_qG - start_qG)).sum(1).cpu())
    return torch.stack(sums)
