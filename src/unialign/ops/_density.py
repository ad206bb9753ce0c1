"""Kernel sums of the rows of one set over the rows of another: kernel densities of unpaired sets.

    l_i = log sum_{j: code_j != code_i} kappa(x_i, y_j)

Shapes: `N` rows x, `K` rows y, `R` local rows of either, `D` dimension, `I` rows and `J` columns of a tile.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unialign._single_backward import first_order_only
from unialign.ops._backend import current_backend
from unialign.ops._kernel_functions import KernelFunction
from unialign.ops._row_selection import ShardLayouts
from unialign.ops._running_log_sums import RunningLogSums
from unialign.ops._tiles import SIDE, rectangle

__all__ = ["Codes", "log_row_sums_between"]

# Integer codes of the rows of both sets; pairs with equal codes are excluded. None: all pairs are included.
Codes = tuple[Tensor, Tensor] | None


def log_row_sums_between(
    x_ND: Tensor,
    y_KD: Tensor,
    *,
    kernel: KernelFunction,
    codes: Codes = None,
    layouts: ShardLayouts = None,
    side: int = SIDE,
) -> Tensor:
    """Return (N,) l; -inf with zero gradient for rows without a pair.

    Args:
        x_ND, y_KD: unit rows.
        layouts: if given, each process computes the sums of its local rows x, which are then gathered, and the
            gradients of its local rows only.
        side: rows per tile; does not affect the result.
    """
    if current_backend() == "reference":
        return _reference(x_ND, y_KD, kernel, codes)
    sums_N: Tensor = _Between.apply(x_ND, y_KD, kernel, codes, layouts, side)  # type: ignore[no-untyped-call]
    return sums_N


class _Between(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_ND: Tensor,
        y_KD: Tensor,
        kernel: KernelFunction,
        codes: Codes,
        layouts: ShardLayouts,
        side: int,
    ) -> Tensor:
        tiles = _PairTiles(x_ND, y_KD, kernel, codes, side)
        if layouts is None:
            sums_N = tiles.log_sums()
        else:
            sums_N = layouts[0].gather(tiles.take_x(layouts[0].local_R).log_sums())
        ctx.save_for_backward(x_ND, y_KD, sums_N)
        ctx.rest = kernel, codes, layouts, side
        return sums_N.to(x_ND.dtype)

    @staticmethod
    def backward(ctx: Any, g_N: Tensor) -> tuple[Tensor | None, ...]:
        x_ND, y_KD, sums_N = ctx.saved_tensors
        kernel, codes, layouts, side = ctx.rest
        with torch.no_grad():
            empty_N = sums_N == -torch.inf
            log_N = torch.where(empty_N, torch.inf, sums_N).to(x_ND.dtype)
            g_N = torch.where(empty_N, 0.0, g_N)
            by_x, by_y = (
                torch.zeros_like(z) if needed else None
                for z, needed in zip((x_ND, y_KD), ctx.needs_input_grad[:2], strict=True)
            )
            tiles = _PairTiles(x_ND, y_KD, kernel, codes, side)
            if layouts is None:
                tiles.accumulate_grads(log_N, g_N, by_x, by_y)
            else:
                _accumulate_local_grads(tiles, log_N, g_N, by_x, by_y, layouts)
        gradients = (None if by_z is None else first_order_only(by_z, x_ND, y_KD, g_N) for by_z in (by_x, by_y))
        return *gradients, None, None, None, None


def _accumulate_local_grads(
    tiles: "_PairTiles", log_N: Tensor, g_N: Tensor, by_x: Tensor | None, by_y: Tensor | None, layouts: Any
) -> None:
    """Compute the gradients of the local rows: x against all y, and y against all x."""
    if by_x is not None:
        local_R = layouts[0].local_R
        by_RD = torch.zeros_like(tiles.x_ND[local_R])
        tiles.take_x(local_R).accumulate_grads(log_N[local_R], g_N[local_R], by_RD, None)
        by_x[local_R] = by_RD
    if by_y is not None:
        local_R = layouts[1].local_R
        by_RD = torch.zeros_like(tiles.y_KD[local_R])
        tiles.take_y(local_R).accumulate_grads(log_N, g_N, None, by_RD)
        by_y[local_R] = by_RD


@dataclass(frozen=True, eq=False)
class _PairTiles:
    """Tiles of log kappa of x against y."""

    x_ND: Tensor
    y_KD: Tensor
    kernel: KernelFunction
    codes: Codes
    side: int

    def take_x(self, rows: Tensor | None) -> "_PairTiles":
        codes = None if self.codes is None else (self.codes[0][rows], self.codes[1])
        return _PairTiles(self.x_ND[rows], self.y_KD, self.kernel, codes, self.side)

    def take_y(self, rows: Tensor | None) -> "_PairTiles":
        codes = None if self.codes is None else (self.codes[0], self.codes[1][rows])
        return _PairTiles(self.x_ND, self.y_KD[rows], self.kernel, codes, self.side)

    def log_sums(self) -> Tensor:
        """Return (N,) l, float64."""
        sums = RunningLogSums(len(self.x_ND), self.x_ND.device)
        for i, _, logk_IJ, _ in self._tiles():
            sums.add(logk_IJ, i)
        return sums.logs()

    def accumulate_grads(self, log_N: Tensor, g_N: Tensor, by_x_ND: Tensor | None, by_y_KD: Tensor | None) -> None:
        """Accumulate the gradients of sum_i g_i l_i into the tensors that are not None."""
        for i, j, logk_IJ, slope in self._tiles():
            weight_IJ = logk_IJ.sub_(log_N[i, None]).exp_().mul_(g_N[i, None]).mul_(slope)
            if by_x_ND is not None:
                by_x_ND[i].addmm_(weight_IJ, self.y_KD[j])
            if by_y_KD is not None:
                by_y_KD[j].addmm_(weight_IJ.mT, self.x_ND[i])

    def _tiles(self) -> Iterator[tuple[slice, slice, Tensor, Tensor | float]]:
        kernel, codes = self.kernel, self.codes
        for i, j in rectangle(len(self.x_ND), len(self.y_KD), side=self.side):
            cosine_IJ = self.x_ND[i] @ self.y_KD[j].mT
            slope = kernel.slope(cosine_IJ)
            logk_IJ = cosine_IJ.sub_(1).mul_(kernel.rate) if kernel.rate is not None else kernel.log(cosine_IJ)
            if codes is not None:
                logk_IJ.masked_fill_(codes[0][i, None] == codes[1][j], -torch.inf)
            yield i, j, logk_IJ, slope


def _reference(x_ND: Tensor, y_KD: Tensor, kernel: KernelFunction, codes: Codes) -> Tensor:
    logk_NK = kernel.log(x_ND @ y_KD.mT)
    if codes is None:
        return torch.logsumexp(logk_NK, 1)
    masked_NK = codes[0][:, None] == codes[1]
    empty_N1 = masked_NK.all(1, keepdim=True)
    # The log-sum-exp of an empty set is -inf with a NaN gradient.
    sums_N = torch.logsumexp(logk_NK.masked_fill(masked_NK & ~empty_N1, -torch.inf), 1)
    return torch.where(empty_N1[:, 0], -torch.inf, sums_N)
