"""Sum kernel values between the rows of two sets, for kernel densities of unpaired sets.

    l_i = log sum_{j: code_j != code_i} kappa(x_i, y_j)

Shapes: `N` rows x, `K` rows y, `R` local rows of either, `D` dimension, `I` rows and `J` columns of a tile.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unialign._single_backward import first_order_only
from unialign.ops._backend import current_backend
from unialign.ops._kernel_functions import KernelFunction
from unialign.ops._log_sums import RunningLogSums, masked_logsumexp
from unialign.ops._row_selection import RowSelection, ShardLayouts
from unialign.ops._tiles import SIDE, rectangle

# Integer codes of the rows of both sets; pairs with equal codes are excluded. None includes all pairs.
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
    """Return l, shape (N,); -inf with zero gradient for rows without pairs. With layouts, each process computes the
    sums of its local rows only.
    """
    if current_backend() == "reference":
        logk_NK = kernel.log(x_ND @ y_KD.mT)
        return (
            torch.logsumexp(logk_NK, 1) if codes is None else masked_logsumexp(logk_NK, codes[0][:, None] == codes[1])
        )
    sums_N: Tensor = _Between.apply(x_ND, y_KD, kernel, codes, layouts, side)  # type: ignore[no-untyped-call]
    return sums_N


class _Between(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_ND: Tensor, y_KD: Tensor, kernel: KernelFunction, codes: Codes, layouts: ShardLayouts, side: int
    ) -> Tensor:
        x, y = _sets(x_ND, y_KD, codes)
        if layouts is not None:
            x = x.local(layouts[0])
        sums = RunningLogSums(len(x.z_ND), x_ND.device)
        for i, _, logk_IJ, _ in _tiles(x, y, kernel, side):
            sums.add(logk_IJ, i)
        sums_N = sums.logs() if layouts is None else layouts[0].gather(sums.logs())
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
            (x, y), needed = _sets(x_ND, y_KD, codes), ctx.needs_input_grad[:2]
            if layouts is None:
                gradients = _gradients(x, y, kernel, side, log_N, g_N, needed)
            else:
                # Layouts for local x against all y, and for local y against all x.
                of_x, of_y = layouts
                by_x_RD, _ = _gradients(
                    x.local(of_x), y, kernel, side, of_x.local(log_N), of_x.local(g_N), (needed[0], False)
                )
                _, by_y_RD = _gradients(x, y.local(of_y), kernel, side, log_N, g_N, (False, needed[1]))
                by_x = None if by_x_RD is None else of_x.scatter(by_x_RD, x_ND)
                by_y = None if by_y_RD is None else of_y.scatter(by_y_RD, y_KD)
                gradients = by_x, by_y
        parts = (None if by_z is None else first_order_only(by_z, x_ND, y_KD, g_N) for by_z in gradients)
        return *parts, None, None, None, None


class _Set(NamedTuple):
    z_ND: Tensor
    codes_N: Tensor | None

    def local(self, layout: RowSelection) -> "_Set":
        return _Set(layout.local(self.z_ND), None if self.codes_N is None else layout.local(self.codes_N))


def _sets(x_ND: Tensor, y_KD: Tensor, codes: Codes) -> tuple[_Set, _Set]:
    codes_N, codes_K = (None, None) if codes is None else codes
    return _Set(x_ND, codes_N), _Set(y_KD, codes_K)


def _tiles(x: _Set, y: _Set, kernel: KernelFunction, side: int) -> Iterator[tuple[slice, slice, Tensor, Any]]:
    """Yield the slices, log kappa and d log kappa / d cos of each tile."""
    for i, j in rectangle(len(x.z_ND), len(y.z_ND), side=side):
        cosine_IJ = x.z_ND[i] @ y.z_ND[j].mT
        slope = kernel.slope(cosine_IJ)
        logk_IJ = cosine_IJ.sub_(1).mul_(kernel.rate) if kernel.rate is not None else kernel.log(cosine_IJ)
        if x.codes_N is not None and y.codes_N is not None:
            logk_IJ.masked_fill_(x.codes_N[i, None] == y.codes_N[j], -torch.inf)
        yield i, j, logk_IJ, slope


def _gradients(
    x: _Set, y: _Set, kernel: KernelFunction, side: int, log_N: Tensor, g_N: Tensor, needed: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of sum_i g_i l_i; None where not needed."""
    by_x_ND, by_y_KD = (torch.zeros_like(z.z_ND) if need else None for z, need in zip((x, y), needed, strict=True))
    for i, j, logk_IJ, slope in _tiles(x, y, kernel, side) if any(needed) else ():
        weight_IJ = logk_IJ.sub_(log_N[i, None]).exp_().mul_(g_N[i, None]).mul_(slope)
        if by_x_ND is not None:
            by_x_ND[i].addmm_(weight_IJ, y.z_ND[j])
        if by_y_KD is not None:
            by_y_KD[j].addmm_(weight_IJ.mT, x.z_ND[i])
    return by_x_ND, by_y_KD
