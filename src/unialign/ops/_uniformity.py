"""Sum kernel values over all pairs of rows of a set in symmetric tiles, for uniformity.

    log_row_sums   l_i = log sum_{j in J_i} kappa(z_i, z_j)              two passes, the second for the gradient
    log_total      log sum_i w_i sum_{j in J_i} kappa(z_i, z_j)          one pass for value and gradient

J_i are the selected rows with an id other than that of row i. With p_ij = kappa_ij / sum_k kappa_ik and s_ij =
d log kappa / d cos, the gradient of sum_i g_i l_i is sum_j (g_i p_ij + g_j p_ji) s_ij z_j, so a tile above the diagonal
contributes to both its rows and its columns. With several processes, each process computes the tiles of its local rows
against all rows. Sums over tiles are float64. Unless `KernelTiles.plain_exp` is True, running maxima prevent overflow
and underflow.

Shapes: `N` selected rows, `D` dimension, `I` rows and `J` columns of a tile.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from unialign._single_backward import first_order_only
from unialign.ops._backend import current_backend, rowwise_backend
from unialign.ops._kernel_functions import KernelFunction
from unialign.ops._kernel_tiles import KernelTiles
from unialign.ops._log_sums import RunningLogSums, ShiftedLogSums, masked_logsumexp
from unialign.ops._row_selection import RowSelection, SelfPairs
from unialign.ops._row_sums import rowwise_log_sums
from unialign.ops._tiles import SIDE

# Maximum excess of a logit over the shift before sums are rescaled; e^40 times a million pairs is in float32's range.
_HEADROOM = 40.0


def log_row_sums(
    z_ND: Tensor,
    *,
    kernel: KernelFunction,
    selection: RowSelection,
    self_pairs: SelfPairs = "excluded",
    side: int = SIDE,
) -> Tensor:
    """Return l, shape (N,); -inf with zero gradient for rows with empty J_i."""
    if current_backend() == "reference":
        masked_NN = selection.masked_table(z_ND.device, self_pairs=self_pairs)
        return masked_logsumexp(kernel.log(z_ND @ z_ND.mT), masked_NN)
    sharded = selection.shard is not None and self_pairs == "included"
    backend = rowwise_backend(z_ND, sharded=sharded)
    if backend is not None and kernel.rate is not None:
        return rowwise_log_sums(z_ND, rate=kernel.rate, selection=selection, self_pairs=self_pairs, backend=backend)
    if sharded:
        selection = selection.unsharded()
    sums_N: Tensor = _RowSums.apply(z_ND, kernel, selection, self_pairs, side)  # type: ignore[no-untyped-call]
    return sums_N


def log_total(
    z_ND: Tensor, *, kernel: KernelFunction, selection: RowSelection, weights_N: Tensor | None = None, side: int = SIDE
) -> Tensor:
    """log sum_i w_i sum_{j in J_i} kappa_ij; at least one J_i must be non-empty."""
    # Square tiles compute the value and the gradient together, with or without sharding.
    rowwise = rowwise_backend(z_ND, sharded=False) is not None
    if current_backend() == "reference" or (rowwise and kernel.rate is not None):
        sums_N = log_row_sums(z_ND, kernel=kernel, selection=selection, side=side)
        if weights_N is not None:
            sums_N = torch.where(weights_N > 0, sums_N + torch.log(weights_N), -torch.inf)
        return torch.logsumexp(sums_N, 0)
    value: Tensor = _Total.apply(z_ND, kernel, selection, weights_N, side)  # type: ignore[no-untyped-call]
    return value


class _RowSums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, z_ND: Tensor, kernel: KernelFunction, selection: RowSelection, self_pairs: SelfPairs, side: int
    ) -> Tensor:
        tiles = KernelTiles(z_ND, kernel, selection, self_pairs, side)
        sums = (ShiftedLogSums if tiles.plain_exp else RunningLogSums)(len(tiles.x_RD), z_ND.device)
        for i, j, logit_IJ, _ in tiles.logits():
            tiles.mask_(logit_IJ, i, j, -torch.inf)
            sums.prepare_(logit_IJ)
            sums.add(logit_IJ, i)
            if tiles.multiplicity(i, j) == 2:
                sums.add(logit_IJ, j, dim=0)
        sums_N = selection.gather(sums.logs() - tiles.offset)
        ctx.save_for_backward(z_ND, sums_N)
        ctx.rest = kernel, selection, self_pairs, side
        return sums_N.to(z_ND.dtype)

    @staticmethod
    def backward(ctx: Any, g_N: Tensor) -> tuple[Tensor | None, ...]:
        z_ND, sums_N = ctx.saved_tensors
        with torch.no_grad():
            tiles = KernelTiles(z_ND, *ctx.rest)
            # exp(s - inf) = 0, so rows with empty J_i contribute nothing for any incoming gradient.
            sums_N = torch.where(sums_N == -torch.inf, torch.inf, sums_N)
            g_N = torch.where(sums_N == torch.inf, 0.0, g_N.double())
            gradient_RD = z_ND.new_zeros(tiles.x_RD.shape)
            weights = _plain_weights(tiles, g_N, sums_N) if tiles.plain_exp else _normalized_weights(tiles, g_N, sums_N)
            for i, j, weight_IJ in weights:
                tiles.accumulate_grad(gradient_RD, i, j, weight_IJ)
            gradient_ND = tiles.selection.scatter(gradient_RD.mul_(tiles.rate), z_ND)
        return first_order_only(gradient_ND, z_ND, g_N), None, None, None, None


def _plain_weights(tiles: KernelTiles, g_N: Tensor, sums_N: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """kappa_ij (g_i / sum_i + g_j / sum_j) s_ij, with one exp per entry."""
    ratio_N = (g_N * torch.exp(-(sums_N + tiles.offset))).to(tiles.z_ND.dtype)
    for i, j, logit_IJ, slope_IJ in tiles.logits():
        kernel_IJ = logit_IJ.exp_()
        tiles.mask_(kernel_IJ, i, j, 0.0)
        kernel_IJ.mul_(tiles.outer_sum(ratio_N, i, j))
        yield i, j, kernel_IJ if slope_IJ is None else kernel_IJ.mul_(slope_IJ)


def _normalized_weights(tiles: KernelTiles, g_N: Tensor, sums_N: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """(g_i p_ij + g_j p_ji) s_ij, with one exp per p, since inverse sums may be out of range."""
    log_N, g_N = (sums_N + tiles.offset).to(tiles.z_ND.dtype), g_N.to(tiles.z_ND.dtype)
    log_R, g_R = tiles.selection.local(log_N), tiles.selection.local(g_N)
    for i, j, logit_IJ, slope_IJ in tiles.logits():
        tiles.mask_(logit_IJ, i, j, -torch.inf)
        weight_IJ = torch.exp(logit_IJ - log_R[i, None]).mul_(g_R[i, None])
        weight_IJ += torch.exp(logit_IJ.sub_(log_N[j])).mul_(g_N[j])
        yield i, j, weight_IJ if slope_IJ is None else weight_IJ.mul_(slope_IJ)


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, z_ND: Tensor, kernel: KernelFunction, selection: RowSelection, weights_N: Tensor | None, side: int
    ) -> Tensor:
        local = _LocalTotal(z_ND, kernel, selection, weights_N, side, with_gradient=ctx.needs_input_grad[0])
        log_total = local.log()
        if selection.shard is not None:
            log_1 = torch.tensor([log_total], dtype=torch.float64, device=z_ND.device)
            log_total = float(torch.logsumexp(selection.shard.gather_numbers(log_1), 0))
        ctx.save_for_backward(z_ND)
        ctx.rest = kernel, selection, weights_N, side
        ctx.log_total = log_total
        # The first backward pass scales the gradient in place and releases it; a second pass recomputes it.
        ctx.gradient_ND = local.gradient(log_total)
        return z_ND.new_tensor(log_total)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        (z_ND,) = ctx.saved_tensors
        with torch.no_grad():
            gradient_ND, ctx.gradient_ND = ctx.gradient_ND, None
            if gradient_ND is None:
                gradient_ND = _LocalTotal(z_ND, *ctx.rest, with_gradient=True).gradient(ctx.log_total)
            gradient_ND = gradient_ND.mul_(g)
        return first_order_only(gradient_ND, z_ND, g), None, None, None, None


class _LocalTotal:
    """Contribution of this process's tiles to the total and to its gradient.

    Total and gradient are accumulated in one pass, as total * exp(-shift) and sum_j W_ij z_j * exp(-shift). The shift
    follows the highest logit so far; when the shift rises, the accumulators are rescaled. Logits with a small range
    need no shift.
    """

    def __init__(
        self,
        z_ND: Tensor,
        kernel: KernelFunction,
        selection: RowSelection,
        weights_N: Tensor | None,
        side: int,
        *,
        with_gradient: bool,
    ) -> None:
        self.tiles = KernelTiles(z_ND, kernel, selection, "excluded", side)
        self.weights_N = None if weights_N is None else weights_N.to(z_ND.dtype)
        self.total, self.shift = 0.0, 0.0 if self.tiles.plain_exp else -math.inf
        self.gradient_RD = z_ND.new_zeros(self.tiles.x_RD.shape) if with_gradient else None
        for i, j, logit_IJ, slope_IJ in self.tiles.logits():
            if not self.tiles.plain_exp:
                self.tiles.mask_(logit_IJ, i, j, -torch.inf)
                self._raise_shift(float(logit_IJ.max()))
                if self.shift > -math.inf:
                    logit_IJ -= self.shift
            self._add(logit_IJ.exp_(), i, j, slope_IJ)

    def log(self) -> float:
        return math.log(self.total) + (self.shift - self.tiles.offset) if self.total > 0 else -math.inf

    def gradient(self, log_total: float) -> Tensor | None:
        """The accumulated tensor is overwritten."""
        if self.gradient_RD is None:
            return None
        rate = self.tiles.rate * (2.0 if self.weights_N is None else 1.0)
        gradient_RD = self.gradient_RD.mul_(rate * math.exp(self.shift - self.tiles.offset - log_total))
        return self.tiles.selection.scatter(gradient_RD, self.tiles.z_ND)

    def _raise_shift(self, highest: float) -> None:
        if highest <= self.shift + _HEADROOM:
            return
        rescale = math.exp(self.shift - highest)
        self.total *= rescale
        if self.gradient_RD is not None:
            self.gradient_RD.mul_(rescale)
        self.shift = highest

    def _add(self, kernel_IJ: Tensor, i: slice, j: slice, slope_IJ: Tensor | None) -> None:
        self.tiles.mask_(kernel_IJ, i, j, 0.0)
        multiplicity: float = self.tiles.multiplicity(i, j)
        if self.weights_N is not None:
            # w_i + w_j covers a pair and its transpose, so each of them gets half.
            kernel_IJ.mul_(self.tiles.outer_sum(self.weights_N, i, j))
            multiplicity *= 0.5
        # First sum each row in the tile's dtype, since a float64 sum of the whole tile would copy the tile.
        self.total += multiplicity * float(kernel_IJ.sum(1).double().sum())
        if self.gradient_RD is not None:
            if slope_IJ is not None:
                kernel_IJ.mul_(slope_IJ)
            self.tiles.accumulate_grad(self.gradient_RD, i, j, kernel_IJ)
