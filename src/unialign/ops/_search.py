"""Search by exact cosines in tiles: count the gallery rows above a threshold, and find the top-k rows.

A float32 product is fast, but its error of about 1e-7 can change a rank. The error is at most (D + 8) u, where u is the
unit roundoff: D u for a sum of D products (Higham, "Accuracy and stability of numerical algorithms", 2nd ed., eq. 3.5),
and the rest for rounding the unit rows, the scale and the threshold. The float32 product decides all pairs whose
distance from the threshold exceeds this bound. The few other pairs are rescored in float64, so the result is the same
as in float64.

Shapes: `Q` queries, `G` gallery rows, `D` dimension, `k` neighbors, `P` pairs; in a tile, `q` queries, `c`
gallery rows and `n` queries with undecided pairs.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from unialign.ops._tiles import SIDE, TILE, row_tiles
from unialign.ops._unit_vectors import UnitRows

# Factor that widens the margin by 2 %, since a rounded sum can miss undecided pairs within 1 % of the margin's edge.
_SLACK = 1.02
# Tiles with a larger fraction of undecided pairs are rescored as a whole, since a pair that is rescored individually
# costs 100 times as much.
_DENSE = 1 / 128
# Number of entries per block, so that the temporaries of a block fit into the cache.
_CACHED = 2**17
# Pending pairs are rescored when their number exceeds this limit.
_MOST_PENDING = 2**15


class Counts(NamedTuple):
    """Numbers of gallery rows for each query, int64 of shape (Q,).

    Attributes:
        above: number of rows whose cosine exceeds the threshold of the query by more than the tolerance.
        level: number of rows whose cosine differs from the threshold by at most the tolerance.
    """

    above: Tensor
    level: Tensor


class _CosineTiles:
    def __init__(self, queries: UnitRows, gallery: UnitRows, rows_Q: Tensor, *, tolerance: float, most: int) -> None:
        self.queries, self.gallery, self.rows_Q = queries, gallery, rows_Q
        self.device = gallery.device
        self.dtype = product_dtype(self.device, gallery.dim)
        unit = torch.finfo(self.dtype).eps / 2
        self.margin = _SLACK * ((gallery.dim + 8) * unit + tolerance)
        threads = torch.get_num_threads() if self.device.type == "cpu" else TILE
        self.most = max(1, min(most, TILE // SIDE, SIDE * threads))

    def tiles(self, scale: float) -> Iterator[tuple[slice, slice, Tensor]]:
        queries, gallery = len(self.rows_Q), len(self.gallery)
        x_QD = torch.empty(queries, self.gallery.dim, dtype=self.dtype, device=self.device)
        for rows in row_tiles(queries, self.gallery.dim):
            x_QD[rows] = self.queries.exact(self.rows_Q[rows]) * scale
        runs = list(row_tiles(queries, SIDE, most=self.most))
        buffer = x_QD.new_empty((runs[0].stop - runs[0].start) * min(SIDE, gallery))
        gallery_buffer = x_QD.new_empty(min(SIDE, gallery), self.gallery.dim)
        for columns in row_tiles(gallery, 1, most=SIDE):
            y_cD = self.gallery.rounded(columns, gallery_buffer[: columns.stop - columns.start])
            for rows in runs:
                shape = (rows.stop - rows.start, len(y_cD))
                s_qc = buffer[: shape[0] * shape[1]].view(shape)
                # Writing to `out` also disables autocast.
                torch.mm(x_QD[rows], y_cD.mT, out=s_qc)
                yield rows, columns, s_qc

    def exact(self, rows: slice, columns: slice) -> Tensor:
        return self.queries.exact(self.rows_Q[rows]) @ self.gallery.exact(columns).mT

    def pairs(self, i_P: Tensor, j_P: Tensor) -> Tensor:
        return pair_scores(self.queries, self.gallery, self.rows_Q.to(self.device)[i_P], j_P)


@torch.no_grad()
def pair_scores(queries: UnitRows, gallery: UnitRows, i_P: Tensor, j_P: Tensor) -> Tensor:
    out_P = torch.empty(len(i_P), dtype=torch.float64, device=gallery.device)
    for part in row_tiles(len(i_P), gallery.dim):
        (x_XD, x_P), (y_YD, y_P) = _distinct(queries, i_P[part]), _distinct(gallery, j_P[part])
        for few in row_tiles(len(x_P), gallery.dim, entries=_CACHED):
            torch.sum(x_XD[x_P[few]].mul_(y_YD[y_P[few]]), 1, out=out_P[part][few])
    return out_P


@torch.no_grad()
def count_above(
    queries: UnitRows, gallery: UnitRows, level_Q: Tensor, *, rows_Q: Tensor, tolerance: float, most: int
) -> Counts:
    """Count the gallery rows with a cosine above the threshold `level_Q`, and those at the threshold, for
    queries[rows_Q].
    """
    cosines = _CosineTiles(queries, gallery, rows_Q, tolerance=tolerance, most=most)
    scale = 1 / cosines.margin
    level_Q1 = (level_Q * scale).to(cosines.dtype)[:, None]
    # `balance_Q` is the number of decided pairs above the threshold minus the number of decided pairs below; the other
    # three tensors count rescored pairs.
    balance_Q = torch.zeros(len(rows_Q), dtype=torch.float64, device=cosines.device)
    undecided_Q, above_Q, at_Q = (torch.zeros_like(balance_Q, dtype=torch.int64) for _ in range(3))

    def add_exact(i_P: Tensor, _: Tensor, s_P: Tensor) -> None:
        difference_P = s_P - level_Q[i_P]
        higher_P = difference_P > tolerance
        undecided_Q.index_add_(0, i_P, torch.ones_like(i_P))
        above_Q.index_add_(0, i_P, higher_P.long())
        at_Q.index_add_(0, i_P, (~higher_P & (difference_P >= -tolerance)).long())

    pending = _PendingPairs(cosines, add_exact)
    for rows, columns, s_qc in cosines.tiles(scale):
        size = s_qc.shape[1]
        # Entries become 1 above the margin and -1 below it; entries within the margin are undecided.
        s_qc.sub_(level_Q1[rows]).clamp_(-1, 1)
        balance_q = s_qc.sum(1)
        undecided_n = (torch.linalg.vector_norm(s_qc, dim=1) != size**0.5).nonzero().flatten()
        if len(undecided_n):
            s_nc = s_qc[undecided_n]
            n_P, c_P = (s_nc.abs() < 1).nonzero(as_tuple=True)
            if len(n_P) > _DENSE * s_qc.numel():
                difference_qc = cosines.exact(rows, columns).sub_(level_Q[rows, None])
                higher_q = (difference_qc > tolerance).sum(1)
                undecided_Q[rows].add_(size)
                above_Q[rows].add_(higher_q)
                at_Q[rows].add_((difference_qc >= -tolerance).sum(1) - higher_q)
                continue
            i_P = undecided_n[n_P]
            balance_q.index_add_(0, i_P, s_nc[n_P, c_P], alpha=-1).round_()
            pending.add(i_P + rows.start, c_P + columns.start)
        balance_Q[rows].add_(balance_q)
    pending.rescore()
    return Counts(above_Q + ((len(gallery) - undecided_Q + balance_Q) / 2).round().long(), at_Q)


@torch.no_grad()
def top_k(queries: UnitRows, gallery: UnitRows, k: int, *, tolerance: float, most: int) -> tuple[Tensor, Tensor]:
    """Cosines that differ by at most `tolerance` are ties, which are sorted by gallery row."""
    rows_Q = torch.arange(len(queries), device=gallery.device)
    cosines = _CosineTiles(queries, gallery, rows_Q, tolerance=tolerance, most=most)
    best = _Best(len(queries), k, tolerance, cosines.device)
    pending = _PendingPairs(cosines, best.add)
    for rows, columns, s_qc in cosines.tiles(1.0):
        limit_q = (best.scores_Qk[rows, -1] - cosines.margin).to(cosines.dtype)
        filling = columns.start < k  # no query has k rows yet
        if filling and s_qc.shape[1] >= k:
            limit_q = s_qc.topk(k, dim=1).values[:, -1] - 2 * cosines.margin
        near_n = (s_qc.amax(1) >= limit_q).nonzero().flatten()
        if not len(near_n):
            continue
        n_P, c_P = (s_qc[near_n] >= limit_q[near_n, None]).nonzero(as_tuple=True)
        i_P = near_n[n_P]
        if len(n_P) > _DENSE * s_qc.numel():
            pending.rescore()
            best.add(i_P + rows.start, c_P + columns.start, cosines.exact(rows, columns)[i_P, c_P])
            continue
        pending.add(i_P + rows.start, c_P + columns.start)
        if filling:
            pending.rescore()
    pending.rescore()
    return best.scores_Qk, best.rows_Qk


class _PendingPairs:
    """Rescore many pairs in one call, since many small calls would take longer than the products."""

    def __init__(self, cosines: _CosineTiles, receive: Callable[[Tensor, Tensor, Tensor], None]) -> None:
        self.cosines, self.receive = cosines, receive
        self.parts: list[tuple[Tensor, Tensor]] = []
        self.count = 0

    def add(self, i_P: Tensor, j_P: Tensor) -> None:
        self.parts.append((i_P, j_P))
        self.count += len(i_P)
        if self.count > _MOST_PENDING:
            self.rescore()

    def rescore(self) -> None:
        if self.parts:
            i_P, j_P = (torch.cat(column) for column in zip(*self.parts, strict=True))
            self.parts, self.count = [], 0
            self.receive(i_P, j_P, self.cosines.pairs(i_P, j_P))


class _Best:
    """The k best pairs of each query; gallery rows must be added in ascending order."""

    def __init__(self, queries: int, k: int, tolerance: float, device: torch.device) -> None:
        self.k, self.tolerance = k, tolerance
        self.scores_Qk = torch.full((queries, k), -torch.inf, dtype=torch.float64, device=device)
        self.rows_Qk = torch.full((queries, k), -1, dtype=torch.int64, device=device)

    def add(self, i_P: Tensor, j_P: Tensor, s_P: Tensor) -> None:
        # A later row that ties with the k-th score is not added.
        enters_P = s_P > self.scores_Qk[i_P, -1] + self.tolerance
        i_P, j_P, s_P = i_P[enters_P], j_P[enters_P], s_P[enters_P]
        if not len(i_P):
            return
        touched_n = torch.unique(i_P)
        known_nk = self.rows_Qk[touched_n] >= 0
        i_P = torch.cat([touched_n[:, None].expand_as(known_nk)[known_nk], i_P])
        j_P = torch.cat([self.rows_Qk[touched_n][known_nk], j_P])
        s_P = torch.cat([self.scores_Qk[touched_n][known_nk], s_P])

        order_P = s_P.argsort(descending=True)
        order_P = order_P[i_P[order_P].argsort(stable=True)]
        i_P, j_P, s_P = i_P[order_P], j_P[order_P], s_P[order_P]
        opens_P = torch.ones_like(i_P, dtype=torch.bool)
        opens_P[1:] = (i_P[1:] != i_P[:-1]) | (s_P[:-1] - s_P[1:] > self.tolerance)
        block_P = opens_P.cumsum(0)
        order_P = j_P.argsort()
        order_P = order_P[block_P[order_P].argsort(stable=True)]
        i_P, j_P, s_P = i_P[order_P], j_P[order_P], s_P[order_P]
        place_P = torch.arange(len(i_P), device=i_P.device) - torch.searchsorted(i_P, i_P)
        kept_P = place_P < self.k
        self.scores_Qk[i_P[kept_P], place_P[kept_P]] = s_P[kept_P]
        self.rows_Qk[i_P[kept_P], place_P[kept_P]] = j_P[kept_P]


def _distinct(x: UnitRows, rows_P: Tensor) -> tuple[Tensor, Tensor]:
    """(X, D) distinct rows in float64, and the (P,) index of each requested row among them."""
    distinct_X, which_P = torch.unique(rows_P, return_inverse=True)
    x_XD = torch.empty(len(distinct_X), x.dim, dtype=torch.float64, device=x.device)
    for few in row_tiles(len(distinct_X), x.dim, entries=_CACHED):
        x_XD[few] = x.exact(distinct_X[few])
    return x_XD, which_P


def product_dtype(device: torch.device, dim: int) -> torch.dtype:
    """float32 if its products are accurate to float32 on this device, else float64."""
    backend = {"cpu": torch.backends.mkldnn, "cuda": torch.backends.cuda}.get(device.type)
    if backend is None or dim > 2**16:
        return torch.float64
    # If TF32 or bfloat16 is enabled for float32 products, their error is 1,000 times larger.
    setting = getattr(backend.matmul, "fp32_precision", None)
    if setting is None:
        setting = "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"
    return torch.float32 if setting in ("ieee", "none") else torch.float64
