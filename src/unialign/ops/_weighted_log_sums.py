"""Sum kernel values of pairs of modalities in tiles, with weights of similar items, for partitions without positives.

    l_ki = log sum_{j in J_ki} w_ij kappa(q_i, k_j)

A direction k has queries q of one modality and keys k of the same or of another modality. J_ki are the other items with
the two modalities and with another id. With unit features x of a modality, its weights are
w_ij = exp(-s max(0, <x_i, x_j>)); the weights between two modalities are the geometric mean of both. A tile of weights
is computed once for all pairs of modalities and for both of its triangles; no N x N matrix is kept. The backward pass
recomputes the tiles: with p_ij = w_ij kappa_ij / sum_j w_ij kappa_ij, the gradient of sum_i g_i l_i is
sum_j (g_i p_ij + g_j p_ji) d log kappa_ij. With several processes, each process computes the tiles of its local items
against all items.

Shapes: `M` modalities, `N` selected items, `R` local items, `D` dimension, `P` pairs of modalities, `K` directions, `I`
rows and `J` columns of a tile.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unialign._single_backward import first_order_only
from unialign.ops._backend import current_backend
from unialign.ops._log_sums import RunningLogSums, ShiftedLogSums, masked_logsumexp
from unialign.ops._pair_sums import PairSums
from unialign.ops._row_selection import RowSelection
from unialign.ops._tiles import SIDE, rectangle, tile_view, upper_triangle
from unialign.ops._weighted_block import WeightedBlock, fits_block

# Exponentials of logits in [-_SPAN, _SPAN / 2], summed over a million rows, are in float32's range (e^-87 to e^88).
_SPAN = 80.0
# On a GPU, larger tiles hide the cost of launching kernels.
_SIDE_GPU = 4096


def weighted_log_sums(
    z_MND: Tensor, sums: PairSums, *, rate_P: Tensor | None = None, side: int | None = None
) -> Tensor:
    """Return l in float64, shape (K, N), in the order of `PairSums.directions`; -inf with zero gradient for empty J_ki.

    Args:
        z_MND: unit rows; rows of absent modalities may have any finite values.
        rate_P: rates of log kappa = rate (cos - 1), equal to those of the kernels. The result is differentiable with
            respect to them; each process gets the gradient over all items.
        side: rows of a tile; the result does not depend on this value. By default, small batches are one block.
    """
    if current_backend() == "reference":
        return _reference(z_MND, sums, rate_P)
    value_KN: Tensor = _WeightedLogSums.apply(z_MND, rate_P, sums, side)  # type: ignore[no-untyped-call]
    return value_KN


class _WeightedLogSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z_MND: Tensor, rate_P: Tensor | None, sums: PairSums, side: int | None) -> Tensor:
        tiles = _logits_of(z_MND, sums, side)
        log_KR = tiles.log_sums()
        log_KN = _gather(log_KR, sums.selection)
        slope_KN = log_KN[:0]
        if ctx.needs_input_grad[1]:
            slope_KN = _gather(_logits_of(z_MND, sums, side).mean_logits(log_KN), sums.selection)
        ctx.save_for_backward(z_MND, rate_P, log_KN, slope_KN)
        ctx.rest = sums, side
        return log_KN

    @staticmethod
    def backward(ctx: Any, g_KN: Tensor) -> tuple[Tensor | None, ...]:
        z_MND, rate_P, log_KN, slope_KN = ctx.saved_tensors
        sums, side = ctx.rest
        with torch.no_grad():
            empty_KN = log_KN == -torch.inf
            g_KN = torch.where(empty_KN, 0.0, g_KN)
            by_z = _logits_of(z_MND, sums, side).gradient(log_KN, g_KN)
            by_rate = None
            if ctx.needs_input_grad[1]:
                by_rate = torch.zeros_like(rate_P, dtype=torch.float64)
                for k, (p, _, _) in enumerate(sums.directions):
                    by_rate[p] += (g_KN[k] * (slope_KN[k] / rate_P[p].double() - 1)).sum()
                by_rate = by_rate.to(rate_P.dtype)
        parts = (None if part is None else first_order_only(part, z_MND, g_KN) for part in (by_z, by_rate))
        return (*parts, None, None)


def _logits_of(z_MND: Tensor, sums: PairSums, side: int | None) -> "_Tiles | WeightedBlock":
    """Return the logits of one pass, which overwrites them."""
    if side is None and fits_block(z_MND, sums):
        return WeightedBlock(z_MND, sums)
    return _Tiles(z_MND, sums, side or (SIDE if z_MND.device.type == "cpu" else _SIDE_GPU))


class _Tile(NamedTuple):
    """Tile of the logits of queries and keys, `rows` and `columns` of the items.

    Attributes:
        forward, backward: the direction of the queries, and the direction with exchanged roles.
        has_columns: whether the sums of the columns are sums of the backward direction.
        bias_IJ: log weights; None if all weights are 1.
        slope_IJ: d log kappa / d cos; None for log-linear kernels.
    """

    pair: int
    query: int
    key: int
    forward: int
    backward: int
    rows: slice
    columns: slice
    has_columns: bool
    logit_IJ: Tensor
    bias_IJ: Tensor | None
    slope_IJ: Tensor | None


class _Tiles:
    """Logits of all pairs, one tile at a time in reused buffers, up to a constant for each pair: rate for log-linear
    kernels, else 0.
    """

    def __init__(self, z_MND: Tensor, sums: PairSums, side: int) -> None:
        self.z_MND, self.sums, self.selection, self.side = z_MND, sums, sums.selection, side
        self.symmetric = self.selection.local_R is None
        self.x_MRD = z_MND if self.symmetric else z_MND[:, self.selection.local_R]
        self.features_R = [None if x is None else -self.selection.local(x) for x in sums.features]
        self.number = {(m, n): k for k, (_, m, n) in enumerate(sums.directions)}
        self.rates = [kernel.rate for kernel in sums.kernels]
        self.offsets = [0.0 if rate is None else rate for rate in self.rates]
        self.plain_exp = all(-sums.lowest(p) <= _SPAN for p in range(len(sums.pairs)))
        longest = min(side, z_MND.shape[1])
        count = 2 + sum(x is not None for x in sums.features)
        buffers = iter(z_MND.new_empty(longest * longest) for _ in range(count))
        self.buffer, self.spare = next(buffers), next(buffers)
        self.bias_buffers = [None if x is None else next(buffers) for x in sums.features]

    def log_sums(self) -> Tensor:
        """Return l for the local items, shape (K, R)."""
        kind = ShiftedLogSums if self.plain_exp else RunningLogSums
        sums = [kind(self.x_MRD.shape[1], self.z_MND.device) for _ in self.number]
        for tile in self._tiles():
            self._mask_(tile, -torch.inf)
            sums[0].prepare_(tile.logit_IJ)
            sums[tile.forward].add(tile.logit_IJ, tile.rows)
            if tile.has_columns:
                sums[tile.backward].add(tile.logit_IJ, tile.columns, dim=0)
        offset_K = [self.offsets[p] for p, _, _ in self.sums.directions]
        return torch.stack([part.logs() - offset for part, offset in zip(sums, offset_K, strict=True)])

    def mean_logits(self, log_KN: Tensor) -> Tensor:
        """Return sum_j p_ij rate cos_ij of the local items, shape (K, R)."""
        local_KR = self._local(log_KN)
        result_KR = torch.zeros_like(local_KR)
        shifts_R, shifts_N = self._shifts(local_KR), self._shifts(log_KN)
        for tile in self._tiles():
            i, j = tile.rows, tile.columns
            product_IJ = tile.logit_IJ.clone() if tile.bias_IJ is None else tile.logit_IJ - tile.bias_IJ
            self._mask_(tile, -torch.inf)
            share_IJ = torch.exp(tile.logit_IJ - shifts_R[tile.forward][i, None]).mul_(product_IJ)
            result_KR[tile.forward, i] += share_IJ.sum(1)
            if tile.has_columns:
                share_IJ = torch.exp(tile.logit_IJ - shifts_N[tile.backward][j]).mul_(product_IJ)
                result_KR[tile.backward, j] += share_IJ.sum(0)
        return result_KR

    def gradient(self, log_KN: Tensor, g_KN: Tensor) -> Tensor:
        """Return the gradient of sum_ki g_ki l_ki; rows of other processes are 0."""
        dtype = self.z_MND.dtype
        gradient_MRD = torch.zeros_like(self.x_MRD)
        scale_K = [1.0 if self.rates[p] is None else self.offsets[p] for p, _, _ in self.sums.directions]
        g_KN = g_KN * g_KN.new_tensor(scale_K)[:, None]
        shifts_N, g_KR = self._shifts(log_KN), self._local(g_KN)
        shifts_R = self._shifts(self._local(log_KN))
        if self.plain_exp:
            ratio_N = [(g_N * torch.exp(-shift_N)).to(dtype) for g_N, shift_N in zip(g_KN, shifts_N, strict=True)]
            ratio_R = [(g_R * torch.exp(-shift_R)).to(dtype) for g_R, shift_R in zip(g_KR, shifts_R, strict=True)]
        else:
            shifts_N, shifts_R = ([shift.to(dtype) for shift in shifts] for shifts in (shifts_N, shifts_R))
            g_KN, g_KR = g_KN.to(dtype), g_KR.to(dtype)
        for tile in self._tiles():
            i, j, f, b = tile.rows, tile.columns, tile.forward, tile.backward
            self._mask_(tile, -torch.inf)
            if self.plain_exp:
                outer_IJ = torch.add(ratio_R[f][i, None], ratio_N[b][j], out=tile_view(self.spare, i, j))
                weight_IJ = tile.logit_IJ.exp_().mul_(outer_IJ)
            else:
                weight_IJ = torch.exp(tile.logit_IJ - shifts_R[f][i, None]).mul_(g_KR[f][i, None])
                weight_IJ += tile.logit_IJ.sub_(shifts_N[b][j]).exp_().mul_(g_KN[b][j])
            if tile.slope_IJ is not None:
                weight_IJ.mul_(tile.slope_IJ)
            gradient_MRD[tile.query, i].addmm_(weight_IJ, self.z_MND[tile.key, j])
            if tile.has_columns:
                gradient_MRD[tile.key, j].addmm_(weight_IJ.mT, self.z_MND[tile.query, i])
        if self.symmetric:
            return gradient_MRD
        gradient_MND = torch.zeros_like(self.z_MND)
        gradient_MND[:, self.selection.local_R] = gradient_MRD
        return gradient_MND

    def _shifts(self, log_KX: Tensor) -> list[Tensor]:
        """Log sums of the logits of the tiles; inf for empty sums, so that their exponentials are 0."""
        offsets = (self.offsets[p] for p, _, _ in self.sums.directions)
        return [torch.where(x == -torch.inf, torch.inf, x + offset) for x, offset in zip(log_KX, offsets, strict=True)]

    def _local(self, x_KN: Tensor) -> Tensor:
        return x_KN if self.symmetric else x_KN[:, self.selection.local_R]

    def _tiles(self) -> Iterator[_Tile]:
        rows, columns = self.x_MRD.shape[1], self.z_MND.shape[1]
        slices = upper_triangle(rows, side=self.side) if self.symmetric else rectangle(rows, columns, side=self.side)
        for i, j in slices:
            half_biases = self._half_biases(i, j)
            on_diagonal = self.symmetric and i == j
            for p, (m, n) in enumerate(self.sums.pairs):
                for query, key in [(m, n)] if m == n or on_diagonal else [(m, n), (n, m)]:
                    logit_IJ, bias_IJ, slope_IJ = self._logits(p, query, key, i, j, half_biases)
                    yield _Tile(
                        pair=p,
                        query=query,
                        key=key,
                        forward=self.number[query, key],
                        backward=self.number[key, query],
                        rows=i,
                        columns=j,
                        has_columns=self.symmetric and not (on_diagonal and query == key),
                        logit_IJ=logit_IJ,
                        bias_IJ=bias_IJ,
                        slope_IJ=slope_IJ,
                    )

    def _half_biases(self, i: slice, j: slice) -> list[Tensor | None]:
        """Half of the log weights of each modality."""
        result: list[Tensor | None] = []
        for x_RW, x_NW, buffer in zip(self.features_R, self.sums.features, self.bias_buffers, strict=True):
            if x_RW is None or x_NW is None or buffer is None:
                result.append(None)
            else:
                result.append(torch.mm(x_RW[i], x_NW[j].mT, out=tile_view(buffer, i, j)).clamp_(max=0.0))
        return result

    def _logits(
        self, p: int, query: int, key: int, i: slice, j: slice, half_biases: list[Tensor | None]
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        out_IJ, rate = tile_view(self.buffer, i, j), self.rates[p]
        bias_IJ = self._bias(half_biases[query], half_biases[key], i, j)
        q_ID, k_JD = self.x_MRD[query, i], self.z_MND[key, j]
        if rate is None:
            torch.mm(q_ID, k_JD.mT, out=out_IJ)
            slope_IJ = torch.as_tensor(self.sums.kernels[p].slope(out_IJ))
            out_IJ.copy_(self.sums.kernels[p].log(out_IJ))
            return (out_IJ if bias_IJ is None else out_IJ.add_(bias_IJ)), bias_IJ, slope_IJ
        if bias_IJ is None:
            return torch.mm(q_ID * rate, k_JD.mT, out=out_IJ), None, None
        return torch.addmm(bias_IJ, q_ID * rate, k_JD.mT, out=out_IJ), bias_IJ, None

    def _bias(self, a_IJ: Tensor | None, b_IJ: Tensor | None, i: slice, j: slice) -> Tensor | None:
        if a_IJ is None or b_IJ is None:
            return b_IJ if a_IJ is None else a_IJ
        return torch.add(a_IJ, b_IJ, out=tile_view(self.spare, i, j))

    def _mask_(self, tile: _Tile, value: float) -> None:
        self.selection.mask_(tile.logit_IJ, tile.rows, tile.columns, value)
        if self.sums.valid_PN is not None:
            valid_N = self.sums.valid_PN[tile.pair]
            tile.logit_IJ.masked_fill_(~valid_N[tile.columns], value)
            tile.logit_IJ.masked_fill_(~self.selection.local(valid_N)[tile.rows, None], value)


def _gather(x_KR: Tensor, selection: RowSelection) -> Tensor:
    return selection.gather(x_KR.mT.contiguous()).mT.contiguous()


def _reference(z_MND: Tensor, sums: PairSums, rate_P: Tensor | None) -> Tensor:
    masked_NN = sums.selection.masked_table(z_MND.device)
    logs = []
    for p, query, key in sums.directions:
        cosine_NN = z_MND[query] @ z_MND[key].mT
        logk_NN = sums.kernels[p].log(cosine_NN) if rate_P is None else rate_P[p] * (cosine_NN - 1)
        for x_NW in sums.features_of(query, key):
            logk_NN = logk_NN - (x_NW @ x_NW.mT).clamp(min=0)
        hidden_NN = masked_NN
        if sums.valid_PN is not None:
            hidden_NN = hidden_NN | ~(sums.valid_PN[p][:, None] & sums.valid_PN[p])
        logs.append(masked_logsumexp(logk_NN.double(), hidden_NN))
    return torch.stack(logs)
