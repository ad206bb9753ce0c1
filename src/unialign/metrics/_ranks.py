"""Ranks of positives, counted in tiles: the rank of a single positive is the number of better candidates plus 1.

Ties are blocks of candidates with equal scores. With `ties="expected"`, a metric is its mean over all orders of each
block, in closed form (McSherry & Najork, ECIR 2008, "Computing information retrieval performance measures efficiently
in the presence of tied scores").

Shapes: `Q` queries, `G` gallery, `q` queries of one tile, `P` positives of a tile.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from unialign.errors import NonFiniteError, ShapeError
from unialign.ops import TIE_TOLERANCE, TILE, row_tiles

Ties = Literal["expected", "optimistic", "pessimistic"]
ScoreFunction = Callable[[Tensor], Tensor]

# Entries per tile: 64 MiB of float64. The C library caches freed blocks of up to 32 MiB and reuses them poorly for
# aligned allocations; with tiles just below that size, score functions with several temporaries used gigabytes.
_TILE = 2 * TILE


@dataclass(frozen=True, eq=False)
class Positives:
    """Codes of queries and gallery rows; the positives of a query are the rows with its code."""

    query_codes_Q: Tensor
    gallery_codes_G: Tensor

    def counts(self) -> Tensor:
        """Return (Q,) numbers of positives."""
        highest = int(torch.maximum(self.query_codes_Q.max(), self.gallery_codes_G.max())) + 1
        return torch.bincount(self.gallery_codes_G, minlength=highest)[self.query_codes_Q]


@dataclass(frozen=True, eq=False)
class RankCounts:
    """Rank counts per query, (Q,) on the CPU.

    Attributes:
        above: g, int64 number of candidates strictly above the best positive.
        tied: T, int64 number of non-positives tied with it.
        tied_positives: p >= 1, int64 number of positives tied with it, including itself.
        positives: int64 number of positives.
        average_precision: in (0, 1]; see `count_ranks` for ties.
        ndcg: in (0, 1], binary gains, discount 1 / log2(1 + rank), whole gallery.
        gallery: number of gallery rows, G.
    """

    above: Tensor
    tied: Tensor
    tied_positives: Tensor
    positives: Tensor
    average_precision: Tensor
    ndcg: Tensor
    gallery: int

    def ranks(self, ties: Ties) -> Tensor:
        """Return the rank of the best positive, from 1; 1 + g + T / (p + 1) for `expected`."""
        first = 1.0 + self.above.double()
        if ties == "optimistic":
            return first
        tied = self.tied.double()
        return first + (tied if ties == "pessimistic" else tied / (self.tied_positives.double() + 1.0))

    def reciprocal_ranks(self, ties: Ties) -> Tensor:
        """Return 1 / rank of the best positive; the mean of 1 / rank (not 1 / mean rank) for `expected`."""
        if ties != "expected":
            return self.ranks(ties).reciprocal()
        return _expected_reciprocal(self.above, self.tied, self.tied_positives)

    def hits(self, k: int, ties: Ties) -> Tensor:
        """Return the probability that at least one positive is in the top k."""
        if ties != "expected":
            return (self.ranks(ties) <= k).double()
        return _hit_probability(self.above, self.tied, self.tied_positives, k)


def count_ranks(
    score: ScoreFunction, positives: Positives, *, ties: Ties, batch_size: int, tolerance: float = TIE_TOLERANCE
) -> RankCounts:
    """Count the ranks of the positives, tile by tile.

    Args:
        score: maps int64 query rows (q,) to (q, G) scores, where larger is better; scores may be infinite.
        positives: at least one for each query.
        ties: order of candidates within `tolerance` of each other; `optimistic` puts positives first.
        batch_size: maximum number of queries per tile; does not affect the result. Memory is O(batch_size * G).
        tolerance: absolute.

    Raises:
        ShapeError: a score tile has the wrong shape.
        NonFiniteError: a score is NaN.
    """
    gallery = len(positives.gallery_codes_G)
    positives_Q = positives.counts()
    tables = Tables(gallery)
    parts: list[tuple[Tensor, ...]] = []
    for tile in row_tiles(len(positives_Q), gallery, most=batch_size, entries=_TILE):
        rows_q = torch.arange(tile.start, tile.stop)
        s_qG = _checked(score(rows_q), rows_q, gallery)
        above_q, tied_q, tied_positives_q, is_positive_qG = _count(s_qG, positives, rows_q, tolerance)
        ap_q = torch.zeros(len(rows_q), dtype=torch.float64)
        dcg_q = torch.zeros(len(rows_q), dtype=torch.float64)
        several_q = positives_Q[rows_q] > 1
        one_q = ~several_q
        ap_q[one_q], dcg_q[one_q] = tables.single(above_q[one_q], tied_q[one_q], ties)
        if bool(several_q.any()):
            pick = several_q.to(s_qG.device)
            ap_q[several_q], dcg_q[several_q] = _ranked_sums(s_qG[pick], is_positive_qG[pick], tables, ties, tolerance)
        parts.append((above_q, tied_q, tied_positives_q, ap_q, dcg_q))
    above_Q, tied_Q, tied_positives_Q, ap_Q, dcg_Q = (torch.cat(column) for column in zip(*parts, strict=True))
    ideal_Q = tables.discount[positives_Q]
    return RankCounts(above_Q, tied_Q, tied_positives_Q, positives_Q, ap_Q / positives_Q, dcg_Q / ideal_Q, gallery)


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


def _count(
    s_qG: Tensor, positives: Positives, rows_q: Tensor, tolerance: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return g, T, p of each query, and the mask of positives."""
    device = s_qG.device
    is_positive_qG = positives.query_codes_Q[rows_q].to(device)[:, None] == positives.gallery_codes_G.to(device)
    best_q1 = torch.where(is_positive_qG, s_qG, -torch.inf).amax(1, keepdim=True)
    above_q = (s_qG > best_q1 + tolerance).sum(1)
    level_qG = s_qG >= best_q1 - tolerance
    block_q = level_qG.sum(1) - above_q
    # No positive is above the best one, so all positives at or above the level of the best are tied with it.
    tied_positives_q = (level_qG & is_positive_qG).sum(1)
    return above_q.cpu(), (block_q - tied_positives_q).cpu(), tied_positives_q.cpu(), is_positive_qG


class Tables:
    """Cumulative sums over ranks, so that the mean over any block takes two lookups."""

    def __init__(self, gallery: int) -> None:
        rank_G = torch.arange(1, gallery + 1, dtype=torch.float64)
        zero = torch.zeros(1, dtype=torch.float64)
        self.harmonic = torch.cat([zero, (1 / rank_G).cumsum(0)])
        self.discount = torch.cat([zero, (1 / torch.log2(1 + rank_G)).cumsum(0)])

    def single(self, above: Tensor, tied: Tensor, ties: Ties) -> tuple[Tensor, Tensor]:
        """Return `block` for queries with one positive."""
        return self.block(above, tied + 1, torch.zeros_like(above), torch.ones_like(above), ties)

    def block(self, before: Tensor, size: Tensor, found: Tensor, relevant: Tensor, ties: Ties) -> tuple[Tensor, Tensor]:
        """Return the sum of precisions at the positives of a tie block, and their discounted gains.

        Args:
            before: c, number of candidates above the block.
            size: t, number of candidates in the block.
            found: R, number of positives above the block.
            relevant: r >= 1, number of positives in the block.

        For positives at known ranks c'+1..c'+r, the precision at the i-th is (R + i) / (c' + i). In expectation over
        orders, rank c + i holds a positive with probability r / t, and then (i - 1)(r - 1) / (t - 1) positives of the
        block are above it on average (McSherry & Najork 2008, section 3).
        """
        if ties == "expected":
            start, end = before, before + size
        else:
            start = before if ties == "optimistic" else before + size - relevant
            end = start + relevant
        inverse = self.harmonic[end] - self.harmonic[start]
        gain = self.discount[end] - self.discount[start]
        # Dividing integer tensors would give float32.
        c, t, found_, r = start.double(), (end - start).double(), found.double(), relevant.double()
        spread = torch.where(t > 1, (r - 1) / (t - 1), 0.0)
        # sum_i (i - 1) / (c + i) = t - (c + 1) * sum_i 1 / (c + i). In a block that has only positives, t = r and
        # spread = 1.
        precision = (r / t) * ((found_ + 1) * inverse + spread * (t - (c + 1) * inverse))
        # Without ties, the closed form would only add rounding errors.
        return torch.where(t == 1, (found_ + 1) / (c + 1), precision), (r / t) * gain


def _ranked_sums(
    s_qG: Tensor, is_positive_qG: Tensor, tables: Tables, ties: Ties, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Return sums of precisions and of discounts over all positives of each query, from the full ranking."""
    queries, gallery = s_qG.shape
    s_qG, order_qG = s_qG.sort(dim=1, descending=True)
    is_positive_qG = is_positive_qG.gather(1, order_qG)
    rank_G = torch.arange(gallery, device=s_qG.device)
    # Equal infinite scores differ by NaN, whose comparison is False, so they count as tied.
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
    before_P, size_P = before_P.cpu(), (end_P - before_P).cpu()
    precision_P, gain_P = tables.block(before_P, size_P, found_P.cpu(), relevant_P, ties)
    # Each of the r positives of a block contributes 1 / r of its sum.
    sums = torch.zeros(2, queries, dtype=torch.float64)
    sums[0].index_add_(0, query_P, precision_P / relevant_P)
    sums[1].index_add_(0, query_P, gain_P / relevant_P)
    return sums[0], sums[1]


def _expected_reciprocal(above: Tensor, tied: Tensor, tied_positives: Tensor) -> Tensor:
    """Return E[1 / (g + F)], F = position of the first of p positives in a random order of p + T candidates.

    P(F = 1) = p / (p + T) and P(F = f + 1) / P(F = f) = (T - f + 1) / (p + T - f).
    """
    out = (1 + above).double().reciprocal()
    blocks = torch.stack([above, tied, tied_positives], 1)[tied > 0]
    if len(blocks) == 0:
        return out
    # In a collapsed space, blocks are large and many queries have the same counts.
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
    """Return 1 - C(T, s) / C(T + p, s), s = k - g positions of the block within the top k (hypergeometric)."""
    places = k - above
    out = (places > tied).double()
    open_ = (places > 0) & (places <= tied)
    if not bool(open_.any()):
        return out
    s, t, p = places[open_].double(), tied[open_].double(), tied_positives[open_].double()
    miss = torch.ones(len(s), dtype=torch.float64)
    # Compute the ratio as a product of s or p factors; factorials would lose precision.
    if int(s.max()) <= int(p.max()):
        for j in range(int(s.max())):
            miss *= torch.where(j < s, (t - j) / (t + p - j), 1.0)
    else:
        for j in range(int(p.max())):
            miss *= torch.where(j < p, (t + p - s - j) / (t + p - j), 1.0)
    out[open_] = 1.0 - miss
    return out
