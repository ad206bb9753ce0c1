"""Count the ranks of positives in tiles. The rank of a single positive is the number of better candidates plus 1.

Ties are blocks of candidates with equal scores. With `ties="expected"`, a metric is the mean over all orders of each
block, in closed form (McSherry & Najork, ECIR 2008, "Computing information retrieval performance measures efficiently
in the presence of tied scores").

Shapes: `Q` queries, `G` gallery rows, `q` queries of one tile, `P` positives of a tile.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from unialign.errors import NonFiniteError, ShapeError
from unialign.metrics._rank_sums import Tables, Ties, ranked_sums
from unialign.metrics._relevance import Positives, Relevance
from unialign.ops import TIE_TOLERANCE, TILE, row_tiles

ScoreFunction = Callable[[Tensor], Tensor]

# Entries per tile: 64 MiB of float64. The C library caches freed blocks of up to 32 MiB and reuses them poorly for
# aligned allocations; with tiles just below that size, score functions with several temporaries used gigabytes.
_TILE = 2 * TILE


@dataclass(frozen=True, eq=False)
class RankCounts:
    """Rank counts of the queries, (Q,) tensors on the CPU.

    Attributes:
        above: g, int64 number of candidates strictly above the best positive.
        tied: T, int64 number of non-positives tied with the best positive.
        tied_positives: p >= 1, int64 number of positives tied with the best positive, including itself.
        positives: int64 number of positives.
        average_precision: in (0, 1]; see `count_ranks` for ties.
        ndcg: in (0, 1], over the whole gallery, with discount 1 / log2(1 + rank); gains are binary unless relevance is
            graded.
        gallery: number of gallery rows, G.
        cut: average precision and nDCG of the first k candidates, for each cut-off k.
    """

    above: Tensor
    tied: Tensor
    tied_positives: Tensor
    positives: Tensor
    average_precision: Tensor
    ndcg: Tensor
    gallery: int
    cut: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def ranks(self, ties: Ties) -> Tensor:
        """Return ranks; 1 + g + T / (p + 1) for `expected`."""
        first = 1.0 + self.above.double()
        if ties == "optimistic":
            return first
        tied = self.tied.double()
        return first + (tied if ties == "pessimistic" else tied / (self.tied_positives.double() + 1.0))

    def reciprocal_ranks(self, ties: Ties) -> Tensor:
        """Return 1 / rank; its mean (not 1 / mean rank) for `expected`."""
        if ties != "expected":
            return self.ranks(ties).reciprocal()
        return _expected_reciprocal(self.above, self.tied, self.tied_positives)

    def hits(self, k: int, ties: Ties) -> Tensor:
        """Return the probability that at least one positive is in the top k."""
        if ties != "expected":
            return (self.ranks(ties) <= k).double()
        return _hit_probability(self.above, self.tied, self.tied_positives, k)


def count_ranks(
    score: ScoreFunction,
    positives: Positives | Relevance,
    *,
    ties: Ties,
    batch_size: int,
    tolerance: float = TIE_TOLERANCE,
    k: Sequence[int] = (),
) -> RankCounts:
    """Count the ranks of positives. `score` maps row numbers of queries to (q, G) scores, which may be infinite. Memory
    is O(batch_size * G).
    """
    gallery, positives_Q = positives.gallery, positives.counts()
    tables = Tables(gallery)
    cutoffs = (None, *k)
    parts: list[tuple[Tensor, ...]] = []
    for tile in row_tiles(len(positives_Q), gallery, most=batch_size, entries=_TILE):
        rows_q = torch.arange(tile.start, tile.stop)
        s_qG = _checked(score(rows_q), rows_q, gallery)
        is_positive_qG, gain_qG = positives.table(rows_q, s_qG.device)
        above_q, tied_q, tied_positives_q = _count(s_qG, is_positive_qG, tolerance)
        sums_C2q = torch.zeros(len(cutoffs), 2, len(rows_q), dtype=torch.float64)
        several_q = positives_Q[rows_q] > 1 if gain_qG is None else torch.ones(len(rows_q), dtype=torch.bool)
        one_q = ~several_q
        sums_C2q[:, :, one_q] = tables.single(above_q[one_q], tied_q[one_q], ties, cutoffs)
        if bool(several_q.any()):
            pick = several_q.to(s_qG.device)
            gains = None if gain_qG is None else gain_qG[pick]
            sums_C2q[:, :, several_q] = ranked_sums(
                s_qG[pick], is_positive_qG[pick], gains, tables, ties, tolerance, cutoffs
            )
        ideal_Cq = tables.ideal(positives_Q[rows_q], gain_qG, cutoffs)
        parts.append((above_q, tied_q, tied_positives_q, sums_C2q, ideal_Cq))
    above_Q, tied_Q, tied_positives_Q, sums_C2Q, ideal_CQ = (
        torch.cat(column, -1) for column in zip(*parts, strict=True)
    )
    ap_CQ, ndcg_CQ = sums_C2Q[:, 0] / positives_Q, sums_C2Q[:, 1] / ideal_CQ
    cut = {at: (ap_CQ[c], ndcg_CQ[c]) for c, at in enumerate(cutoffs) if at is not None}
    return RankCounts(above_Q, tied_Q, tied_positives_Q, positives_Q, ap_CQ[0], ndcg_CQ[0], gallery, cut)


def _checked(s_qG: Tensor, rows_q: Tensor, gallery: int) -> Tensor:
    if tuple(s_qG.shape) != (len(rows_q), gallery):
        raise ShapeError(
            f"score returned {tuple(s_qG.shape)} for {len(rows_q)} queries; expected ({len(rows_q)}, {gallery})"
        )
    s_qG = s_qG.detach()
    # Comparisons with NaN are False, so without this check an invalid query would rank first.
    bad_qG = torch.isnan(s_qG)
    if bool(bad_qG.any()):
        i, j = bad_qG.nonzero()[0].tolist()
        raise NonFiniteError(f"the score of query {int(rows_q[i])} with gallery row {j} is nan; expected a number")
    return (s_qG.cpu() if s_qG.device.type == "mps" else s_qG).double()  # mps has no float64


def _count(s_qG: Tensor, is_positive_qG: Tensor, tolerance: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return g, T, p of each query."""
    best_q1 = torch.where(is_positive_qG, s_qG, -torch.inf).amax(1, keepdim=True)
    above_q = (s_qG > best_q1 + tolerance).sum(1)
    level_qG = s_qG >= best_q1 - tolerance
    block_q = level_qG.sum(1) - above_q
    # No positive is above the best positive, so all positives in `level_qG` are tied with the best positive.
    tied_positives_q = (level_qG & is_positive_qG).sum(1)
    return above_q.cpu(), (block_q - tied_positives_q).cpu(), tied_positives_q.cpu()


def _expected_reciprocal(above: Tensor, tied: Tensor, tied_positives: Tensor) -> Tensor:
    """Return E[1 / (g + F)], with F the position of the first of p positives in a random order of p + T candidates.

    P(F = 1) = p / (p + T) and P(F = f + 1) / P(F = f) = (T - f + 1) / (p + T - f).
    """
    out = (1 + above).double().reciprocal()
    blocks = torch.stack([above, tied, tied_positives], 1)[tied > 0]
    if len(blocks) == 0:
        return out
    # Compute each distinct block once. In a collapsed space, blocks are large and many queries have the same counts.
    distinct, which = torch.unique(blocks, dim=0, return_inverse=True)
    values = torch.empty(len(distinct), dtype=torch.float64)
    for i, (g, t, p) in enumerate(distinct.tolist()):
        index = torch.arange(1, t + 1, dtype=torch.float64)
        first = torch.full((1,), p / (p + t), dtype=torch.float64)
        chance = torch.cat([first, first * ((t - index + 1) / (p + t - index)).cumprod(0)])
        values[i] = (chance / (g + torch.arange(1, t + 2, dtype=torch.float64))).sum()
    out[tied > 0] = values[which]
    return out


def _hit_probability(above: Tensor, tied: Tensor, tied_positives: Tensor, k: int) -> Tensor:
    """Return 1 - C(T, s) / C(T + p, s), where s = k - g positions of the block are in the top k (hypergeometric)."""
    places = k - above
    out = (places > tied).double()
    open_ = (places > 0) & (places <= tied)
    if not bool(open_.any()):
        return out
    s, t, p = places[open_].double(), tied[open_].double(), tied_positives[open_].double()
    miss = torch.ones(len(s), dtype=torch.float64)
    # Compute the ratio as a product of s or p factors, since factorials would lose precision.
    if int(s.max()) <= int(p.max()):
        for j in range(int(s.max())):
            miss *= torch.where(j < s, (t - j) / (t + p - j), 1.0)
    else:
        for j in range(int(p.max())):
            miss *= torch.where(j < p, (t + p - s - j) / (t + p - j), 1.0)
    out[open_] = 1.0 - miss
    return out
