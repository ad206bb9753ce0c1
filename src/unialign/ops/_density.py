"""Kernel sums of the rows of one set over another: densities, and what compares two sets without pairing them.

    l_i = log sum_{j: code_j != code_i} kappa(x_i, y_j)

Shapes: `N` rows x, `K` rows y, `R` of either this process's own, `D` width, `I` rows and `J` columns of a tile.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from unialign.ops._backend import chosen
from unialign.ops._kernel_functions import KernelFunction
from unialign.ops._once import first_order_only
from unialign.ops._row_selection import RowSelection
from unialign.ops._tiles import SIDE, rectangle

__all__ = ["Codes", "Divided", "log_row_sums_between"]

# Integers of the rows of both sets: equal ones do not see each other. None: all see all.
Codes = tuple[Tensor, Tensor] | None
# How the rows of both sets lie on the processes. None: each process makes the whole.
Divided = tuple[RowSelection, RowSelection] | None


def log_row_sums_between(
    x_ND: Tensor,
    y_KD: Tensor,
    *,
    profile: KernelFunction,
    codes: Codes = None,
    divided: Divided = None,
    side: int = SIDE,
) -> Tensor:
    """(N,) l; -inf, without gradient, in rows that see nobody.

    Args:
        x_ND, y_KD: unit rows.
        divided: if given, each process makes the sums of its own rows x, which are then exchanged, and has the gradient
            of its own rows alone.
        side: rows of a tile; the result does not depend on it.
    """
    if chosen() == "reference":
        return _dense(x_ND, y_KD, profile, codes)
    sums_N: Tensor = _Between.apply(x_ND, y_KD, profile, codes, divided, side)  # type: ignore[no-untyped-call]
    return sums_N


class _Between(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_ND: Tensor, y_KD: Tensor, profile: KernelFunction, codes: Codes, divided: Divided, side: int
    ) -> Tensor:
        if divided is None:
            sums_N = _log_sums(x_ND, y_KD, profile, codes, side)
        else:
            own_codes = _rows_of(codes, 0, divided[0])
            sums_N = divided[0].gather(_log_sums(x_ND[divided[0].places_R], y_KD, profile, own_codes, side))
        ctx.save_for_backward(x_ND, y_KD, sums_N)
        ctx.rest = profile, codes, divided, side
        return sums_N.to(x_ND.dtype)

    @staticmethod
    def backward(ctx: Any, g_N: Tensor) -> tuple[Tensor | None, ...]:
        x_ND, y_KD, sums_N = ctx.saved_tensors
        profile, codes, divided, side = ctx.rest
        by_x, by_y = ctx.needs_input_grad[:2]
        with torch.no_grad():
            empty_N = sums_N == -torch.inf
            log_N = torch.where(empty_N, torch.inf, sums_N).to(x_ND.dtype)
            g_N = torch.where(empty_N, 0.0, g_N)
            by_x_ND, by_y_KD = (torch.zeros_like(z) if wanted else None for z, wanted in ((x_ND, by_x), (y_KD, by_y)))
            if divided is None:
                _pull(x_ND, y_KD, log_N, g_N, by_x_ND, by_y_KD, profile, codes, side)
            else:
                # Own rows meet all others twice: as rows x, and as rows y.
                if by_x_ND is not None:
                    own_R, rest = divided[0].places_R, (profile, _rows_of(codes, 0, divided[0]), side)
                    by_RD = torch.zeros_like(x_ND[own_R])
                    _pull(x_ND[own_R], y_KD, log_N[own_R], g_N[own_R], by_RD, None, *rest)
                    by_x_ND[own_R] = by_RD
                if by_y_KD is not None:
                    own_R, rest = divided[1].places_R, (profile, _rows_of(codes, 1, divided[1]), side)
                    by_RD = torch.zeros_like(y_KD[own_R])
                    _pull(x_ND, y_KD[own_R], log_N, g_N, None, by_RD, *rest)
                    by_y_KD[own_R] = by_RD
        gradients = (None if by_z is None else first_order_only(by_z, x_ND, y_KD, g_N) for by_z in (by_x_ND, by_y_KD))
        return *gradients, None, None, None, None


def _log_sums(x_ND: Tensor, y_KD: Tensor, profile: KernelFunction, codes: Codes, side: int) -> Tensor:
    """(N,) l, float64."""
    highest_N = torch.full((len(x_ND),), -torch.inf, dtype=torch.float64, device=x_ND.device)
    total_N = torch.zeros_like(highest_N)
    for i, _, logk_IJ, _ in _tiles(x_ND, y_KD, profile, codes, side):
        higher = torch.maximum(highest_N[i], logk_IJ.amax(1).double())
        # Nothing seen so far: -inf - -inf would be NaN.
        shift = torch.where(higher == -torch.inf, 0.0, higher)
        logk_IJ.sub_(shift.to(logk_IJ.dtype)[:, None]).exp_()
        total_N[i] = total_N[i] * torch.exp(highest_N[i] - shift) + logk_IJ.sum(1)
        highest_N[i] = higher
    return torch.where(total_N > 0, highest_N + torch.log(total_N), -torch.inf)


def _pull(
    x_ND: Tensor,
    y_KD: Tensor,
    log_N: Tensor,
    g_N: Tensor,
    by_x_ND: Tensor | None,
    by_y_KD: Tensor | None,
    profile: KernelFunction,
    codes: Codes,
    side: int,
) -> None:
    """Add the gradients of sum_i g_i l_i to those that are wanted."""
    for i, j, logk_IJ, slope in _tiles(x_ND, y_KD, profile, codes, side):
        weight_IJ = logk_IJ.sub_(log_N[i, None]).exp_().mul_(g_N[i, None])
        weight_IJ.mul_(slope)
        if by_x_ND is not None:
            by_x_ND[i].addmm_(weight_IJ, y_KD[j])
        if by_y_KD is not None:
            by_y_KD[j].addmm_(weight_IJ.mT, x_ND[i])


def _rows_of(codes: Codes, place: int, members: RowSelection) -> Codes:
    """The codes, of one side those of its own rows alone."""
    if codes is None:
        return None
    own_R = members.places_R
    return (codes[0][own_R], codes[1]) if place == 0 else (codes[0], codes[1][own_R])


def _tiles(
    x_ND: Tensor, y_KD: Tensor, profile: KernelFunction, codes: Codes, side: int
) -> Iterator[tuple[slice, slice, Tensor, Tensor | float]]:
    for i, j in rectangle(len(x_ND), len(y_KD), side=side):
        cosine_IJ = x_ND[i] @ y_KD[j].mT
        slope = profile.slope(cosine_IJ)
        logk_IJ = cosine_IJ.sub_(1).mul_(profile.rate) if profile.rate is not None else profile.log(cosine_IJ)
        if codes is not None:
            logk_IJ.masked_fill_(codes[0][i, None] == codes[1][j], -torch.inf)
        yield i, j, logk_IJ, slope


def _dense(x_ND: Tensor, y_KD: Tensor, profile: KernelFunction, codes: Codes) -> Tensor:
    logk_NK = profile.log(x_ND @ y_KD.mT)
    if codes is None:
        return torch.logsumexp(logk_NK, 1)
    hidden_NK = codes[0][:, None] == codes[1]
    empty_N1 = hidden_NK.all(1, keepdim=True)
    # The log-sum-exp of nothing is -inf with a NaN gradient.
    sums_N = torch.logsumexp(logk_NK.masked_fill(hidden_NK & ~empty_N1, -torch.inf), 1)
    return torch.where(empty_N1[:, 0], -torch.inf, sums_N)
