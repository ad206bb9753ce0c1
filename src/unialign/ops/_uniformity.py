"""Kernel sums of rows with themselves, which uniformity is made of: in symmetric tiles, each visited once.

    log_row_sums   l_i = log sum_{j in J_i} kappa(z_i, z_j)              two passes, the second one for the gradient
    log_total      log sum_i w_i sum_{j in J_i} kappa(z_i, z_j)          one pass for value and gradient

J_i are the other members of another id. With p_ij = kappa_ij / sum_k kappa_ik and s_ij the slope of log kappa by the
cosine, the gradient of sum_i g_i l_i is sum_j (g_i p_ij + g_j p_ji) s_ij z_j: a tile above the diagonal serves both of
its sides. On many processes each has tiles of its own rows against all instead. Sums over tiles are float64; no number
ever leaves float32's range, since logits that span more than `SPAN` take a path of their own with running maxima.

Shapes: `N` members, `D` width, `I` rows and `J` columns of a tile.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unialign.ops import _row_sums
from unialign.ops._backend import chosen, rowwise_backend
from unialign.ops._kernel_functions import KernelFunction
from unialign.ops._kernel_tiles import OwnTiles, SelfPairs, Tiles
from unialign.ops._once import first_order_only
from unialign.ops._row_selection import RowSelection
from unialign.ops._row_sums_torch import Own
from unialign.ops._tiles import SIDE

__all__ = ["SelfPairs", "log_row_sums", "log_total"]

# How far above the shift an entry may lie before everything is scaled down to it.
_SLACK = 40.0


def log_row_sums(
    z_ND: Tensor,
    *,
    profile: KernelFunction,
    members: RowSelection,
    self_pairs: SelfPairs = "excluded",
    side: int = SIDE,
) -> Tensor:
    """(N,) l; -inf, without gradient, in rows that have nobody to be compared with.

    Args:
        z_ND: the members' unit rows, float32 or float64.
        self_pairs: `included` adds each row's kernel with itself.
        side: rows of a tile; the result does not depend on it.
    """
    if chosen() == "reference":
        return _dense_row_sums(z_ND, profile, members, self_pairs)
    # `OwnTiles` leave a row's own pair out.
    divided = members.shard is not None and self_pairs == "included"
    backend = rowwise_backend(z_ND, divided=divided)
    if backend is not None and profile.rate is not None:
        own: Own = "kept" if self_pairs == "included" else "left_out"
        return _row_sums.log_row_sums(z_ND, rate=profile.rate, members=members, own=own, backend=backend)
    sums_N: Tensor = _RowSums.apply(z_ND, profile, members, self_pairs, side)  # type: ignore[no-untyped-call]
    return sums_N


def log_total(
    z_ND: Tensor, *, profile: KernelFunction, members: RowSelection, weights_N: Tensor | None = None, side: int = SIDE
) -> Tensor:
    """log sum_i w_i sum_{j in J_i} kappa_ij, a scalar; at least one row must have somebody to be compared with.

    Args:
        weights_N: at least 0, without gradient; 1 if None.
    """
    # On tiles the gradient is made with the value, on one process and on many.
    rowwise = rowwise_backend(z_ND, divided=False) is not None
    if chosen() == "reference" or (rowwise and profile.rate is not None):
        sums_N = log_row_sums(z_ND, profile=profile, members=members, side=side)
        if weights_N is not None:
            sums_N = torch.where(weights_N > 0, sums_N + torch.log(weights_N), -torch.inf)
        return torch.logsumexp(sums_N, 0)
    value: Tensor = _Total.apply(z_ND, profile, members, weights_N, side)  # type: ignore[no-untyped-call]
    return value


class _RowSums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, z_ND: Tensor, profile: KernelFunction, members: RowSelection, self_pairs: SelfPairs, side: int
    ) -> Tensor:
        tiles = _tiles(z_ND, profile, members, self_pairs, side)
        sums_N = _sums(tiles) if tiles.narrow else _sums_of_any_span(tiles)
        if isinstance(tiles, OwnTiles):
            sums_N = members.gather(sums_N)
        ctx.save_for_backward(z_ND, sums_N)
        ctx.rest = profile, members, self_pairs, side
        return sums_N.to(z_ND.dtype)

    @staticmethod
    def backward(ctx: Any, g_N: Tensor) -> tuple[Tensor | None, ...]:
        z_ND, sums_N = ctx.saved_tensors
        with torch.no_grad():
            tiles = _tiles(z_ND, *ctx.rest)
            # exp(s - inf) = 0: a row without others has no part, whatever gradient it is given.
            sums_N = torch.where(sums_N == -torch.inf, torch.inf, sums_N)
            g_N = torch.where(sums_N == torch.inf, 0.0, g_N.double())
            gradient = z_ND.new_zeros(tiles.rows, z_ND.shape[1])
            weigh = _narrow_weights(tiles, g_N, sums_N) if tiles.narrow else _wide_weights(tiles, g_N, sums_N)
            for i, j, weight_IJ in weigh:
                tiles.accumulate_grad(gradient, i, j, weight_IJ)
            gradient_ND = _at_their_places(gradient.mul_(tiles.rate), tiles)
        return first_order_only(gradient_ND, z_ND, g_N), None, None, None, None


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, z_ND: Tensor, profile: KernelFunction, members: RowSelection, weights_N: Tensor | None, side: int
    ) -> Tensor:
        part = _part_of_total(z_ND, profile, members, weights_N, side, with_gradient=ctx.needs_input_grad[0])
        log_total = part.log
        if members.shard is not None:
            own_1 = torch.tensor([part.log], dtype=torch.float64, device=z_ND.device)
            log_total = float(torch.logsumexp(members.shard.gather_numbers(own_1), 0))
        ctx.save_for_backward(z_ND)
        ctx.rest = profile, members, weights_N, side
        ctx.log_total = log_total
        # Handed over once, in place; whoever differentiates a second time waits for it to be made again.
        ctx.gradient_ND = part.gradient(log_total)
        return z_ND.new_tensor(log_total)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        (z_ND,) = ctx.saved_tensors
        with torch.no_grad():
            gradient_ND, ctx.gradient_ND = ctx.gradient_ND, None
            if gradient_ND is None:
                part = _part_of_total(z_ND, *ctx.rest, with_gradient=True)
                gradient_ND = part.gradient(ctx.log_total)
            gradient_ND = gradient_ND.mul_(g)
        return first_order_only(gradient_ND, z_ND, g), None, None, None, None


def _tiles(z_ND: Tensor, profile: KernelFunction, members: RowSelection, self_pairs: SelfPairs, side: int) -> Tiles:
    if members.places_R is None or self_pairs == "included":
        return Tiles(z_ND, profile, members, self_pairs, side)
    return OwnTiles(z_ND, profile, members, side)


def _at_their_places(gradient: Tensor, tiles: Tiles) -> Tensor:
    """(N, D): 0 in the rows that other processes answer for."""
    return tiles.members.broadcast(gradient, tiles.z_ND) if isinstance(tiles, OwnTiles) else gradient


def _sums(tiles: Tiles) -> Tensor:
    total_N = torch.zeros(tiles.rows, dtype=torch.float64, device=tiles.z_ND.device)
    for i, j, logit_IJ, _ in tiles.logits():
        kernel_IJ = logit_IJ.exp_()
        tiles.mask_(kernel_IJ, i, j, 0.0)
        total_N[i] += kernel_IJ.sum(1)
        if tiles.multiplicity(i, j) == 2:
            total_N[j] += kernel_IJ.sum(0)
    return torch.log(total_N) - tiles.offset


def _sums_of_any_span(tiles: Tiles) -> Tensor:
    highest_N = torch.full((tiles.rows,), -torch.inf, dtype=torch.float64, device=tiles.z_ND.device)
    total_N = torch.zeros_like(highest_N)
    for i, j, logit_IJ, _ in tiles.logits():
        tiles.mask_(logit_IJ, i, j, -torch.inf)
        for place, dim in ((i, 1), (j, 0))[: tiles.multiplicity(i, j)]:
            higher = torch.maximum(highest_N[place], logit_IJ.amax(dim).double())
            # Nothing seen so far: -inf - -inf would be NaN.
            shift = torch.where(higher == -torch.inf, 0.0, higher)
            kernel_IJ = torch.exp(logit_IJ - shift.to(logit_IJ.dtype).unsqueeze(dim))
            # The shift as it was subtracted: rounded, it still cancels.
            total_N[place] = total_N[place] * torch.exp(highest_N[place] - shift) + kernel_IJ.sum(dim)
            highest_N[place] = higher
    return torch.where(total_N > 0, highest_N + torch.log(total_N), -torch.inf) - tiles.offset


def _narrow_weights(tiles: Tiles, g_N: Tensor, sums_N: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """kappa_ij (g_i / sum_i + g_j / sum_j) s_ij, with one exp an entry."""
    share_N = (g_N * torch.exp(-(sums_N + tiles.offset))).to(tiles.z_ND.dtype)
    for i, j, logit_IJ, slope_IJ in tiles.logits():
        kernel_IJ = logit_IJ.exp_()
        tiles.mask_(kernel_IJ, i, j, 0.0)
        kernel_IJ.mul_(tiles.outer_sum(share_N, i, j))
        yield i, j, kernel_IJ if slope_IJ is None else kernel_IJ.mul_(slope_IJ)


def _wide_weights(tiles: Tiles, g_N: Tensor, sums_N: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """g_i p_ij + g_j p_ji by an exp for each: neither sum's inverse need be a number."""
    log_N, g_N = (sums_N + tiles.offset).to(tiles.z_ND.dtype), g_N.to(tiles.z_ND.dtype)
    own_log_N, own_g_N = tiles.of_rows(log_N), tiles.of_rows(g_N)
    for i, j, logit_IJ, slope_IJ in tiles.logits():
        tiles.mask_(logit_IJ, i, j, -torch.inf)
        weight_IJ = torch.exp(logit_IJ - own_log_N[i, None]).mul_(own_g_N[i, None])
        weight_IJ += torch.exp(logit_IJ.sub_(log_N[j])).mul_(g_N[j])
        yield i, j, weight_IJ if slope_IJ is None else weight_IJ.mul_(slope_IJ)


@dataclass(frozen=True, eq=False)
class _Part:
    """What one process has of the total.

    Attributes:
        log: its logarithm; -inf where the process has no pair.
        shift: factor of the gradient, as a logarithm.
        rate: factor of the gradient.
        pulled: sum_j W_ij z_j of the rows that it answers for, below the shift; None if nobody asked for it.
    """

    log: float
    shift: float
    rate: float
    pulled: Tensor | None
    tiles: Tiles

    def gradient(self, log_total: float) -> Tensor | None:
        """(N, D) of the log of the whole total; `pulled` is used up."""
        if self.pulled is None:
            return None
        return _at_their_places(self.pulled.mul_(self.rate * math.exp(self.shift - log_total)), self.tiles)


def _part_of_total(
    z_ND: Tensor,
    profile: KernelFunction,
    members: RowSelection,
    weights_N: Tensor | None,
    side: int,
    *,
    with_gradient: bool,
) -> _Part:
    tiles = _tiles(z_ND, profile, members, "excluded", side)
    gradient = z_ND.new_zeros(tiles.rows, z_ND.shape[1]) if with_gradient else None
    total, shift = 0.0, 0.0 if tiles.narrow else -math.inf
    weights_N = None if weights_N is None else weights_N.to(tiles.z_ND.dtype)
    for i, j, logit_IJ, slope_IJ in tiles.logits():
        if not tiles.narrow:
            tiles.mask_(logit_IJ, i, j, -torch.inf)
            highest = float(logit_IJ.max())
            if highest > shift + _SLACK:
                smaller = math.exp(shift - highest)
                total *= smaller
                if gradient is not None:
                    gradient.mul_(smaller)
                shift = highest
            if shift > -math.inf:
                logit_IJ -= shift
        kernel_IJ = logit_IJ.exp_()
        tiles.mask_(kernel_IJ, i, j, 0.0)
        if weights_N is not None:
            kernel_IJ.mul_(tiles.outer_sum(weights_N, i, j))
        # Of w_i + w_j a pair's half is its own, the other half that of its mirror image.
        once = tiles.multiplicity(i, j) * (1.0 if weights_N is None else 0.5)
        # Rows first, in the tile's dtype: asked for float64, the sum would copy the tile.
        total += once * float(kernel_IJ.sum(1).double().sum())
        if gradient is not None:
            if slope_IJ is not None:
                kernel_IJ.mul_(slope_IJ)
            tiles.accumulate_grad(gradient, i, j, kernel_IJ)
    shift -= tiles.offset
    log = math.log(total) + shift if total > 0 else -math.inf
    return _Part(log, shift, tiles.rate * (2.0 if weights_N is None else 1.0), gradient, tiles)


def _dense_row_sums(z_ND: Tensor, profile: KernelFunction, members: RowSelection, self_pairs: SelfPairs) -> Tensor:
    logk_NN = profile.log(z_ND @ z_ND.mT)
    own_NN = torch.eye(len(z_ND), dtype=torch.bool, device=z_ND.device)
    hidden_NN = members.same_id_table(z_ND.device) & ~own_NN
    if self_pairs == "excluded":
        hidden_NN = hidden_NN | own_NN
    empty_N1 = hidden_NN.all(1, keepdim=True)
    # The log-sum-exp of nothing is -inf with a NaN gradient.
    sums_N = torch.logsumexp(logk_NN.masked_fill(hidden_NN & ~empty_N1, -torch.inf), 1)
    return torch.where(empty_N1[:, 0], -torch.inf, sums_N)
