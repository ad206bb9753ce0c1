"""Uniformity and InfoNCE from the row sums of `_rows`: what runs as Triton kernels, and as compiled tiles.

Every product is formed with whole rows of this process's own, so one pass serves one process and many. A symmetric
table is not visited by halves here: on a GPU that would need atomics, and the order of their sums is chance.

Shapes: `N` members, `R` of them this process's own, `D` width.
"""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from unialign.kernels import _rows
from unialign.kernels._backend import Backend
from unialign.kernels._members import Members
from unialign.kernels._once import first_order_only
from unialign.kernels._rows import Own, Table

__all__ = ["log_row_sums", "mean_log_partition"]


def log_row_sums(z_ND: Tensor, *, rate: float, members: Members, backend: Backend, own: Own = "left_out") -> Tensor:
    """(N,) log sum over the members k of another id, and k = i if it is kept, of exp(rate (<z_i, z_k> - 1)).

    -inf where there is none.
    """
    sums_N: Tensor = _RowSums.apply(z_ND, rate, members, own, backend)  # type: ignore[no-untyped-call]
    return sums_N


def mean_log_partition(x_ND: Tensor, y_ND: Tensor, scale: Tensor, *, members: Members, backend: Backend) -> Tensor:
    """1/(2N) sum_i (log sum_k exp(scale <x_i, y_k>) + log sum_k exp(scale <y_i, x_k>)), k = i or of another id.

    Args:
        scale: scalar tensor, differentiable. On many processes its gradient is that of all rows, the same on each.
    """
    value: Tensor = _MeanPartition.apply(x_ND, y_ND, scale, members, backend)  # type: ignore[no-untyped-call]
    return value


class _RowSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z_ND: Tensor, rate: float, members: Members, own: Own, backend: Backend) -> Tensor:
        table = _table(z_ND, z_ND, rate, members, own)
        r_N = members.gather(_log_sums(table, backend))
        ctx.save_for_backward(z_ND, r_N)
        ctx.rate, ctx.members, ctx.own, ctx.backend = rate, members, own, backend
        return r_N - rate

    @staticmethod
    def backward(ctx: Any, g_N: Tensor) -> tuple[Tensor | None, ...]:
        z_ND, r_N = ctx.saved_tensors
        with torch.no_grad():
            table = _table(z_ND, z_ND, ctx.rate, ctx.members, ctx.own)
            places_R = table.places_R
            p_RD = _pull(table, r_N[places_R], g_N[places_R], r_N, g_N, ctx.backend)
            gradient_ND = _all_rows(p_RD, z_ND, ctx.members)
        return first_order_only(gradient_ND, z_ND, g_N), None, None, None, None


class _MeanPartition(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, y_ND: Tensor, scale: Tensor, members: Members, backend: Backend) -> Tensor:
        factor = float(scale)
        tables = [_table(a_ND, b_ND, factor, members, "kept") for a_ND, b_ND in ((x_ND, y_ND), (y_ND, x_ND))]
        # The slope by the scale is made here, where it comes together with the sums: one exchange serves both.
        if ctx.needs_input_grad[2]:
            own = [column_R for table in tables for column_R in _log_sums_and_means(table, backend)]
            r_N, by_r_N, c_N, by_c_N = members.gather(torch.stack(own, 1)).unbind(1)
            by_scale = (by_r_N.sum() + by_c_N.sum()) / (factor * max(1, 2 * len(r_N)))
        else:
            r_N, c_N = members.gather(torch.stack([_log_sums(table, backend) for table in tables], 1)).unbind(1)
            by_scale = r_N.new_zeros(())
        ctx.save_for_backward(x_ND, y_ND, scale, r_N.contiguous(), c_N.contiguous(), by_scale)
        ctx.members, ctx.backend = members, backend
        return ((r_N.sum() + c_N.sum()) / max(1, 2 * len(r_N))).to(scale.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x_ND, y_ND, scale, r_N, c_N, slope = ctx.saved_tensors
        members: Members = ctx.members
        with torch.no_grad():
            g_N = (gradient / max(1, 2 * len(r_N))).to(r_N.dtype).expand(len(r_N))
            gradients = []
            for a_ND, b_ND, own_N, other_N in ((x_ND, y_ND, r_N, c_N), (y_ND, x_ND, c_N, r_N)):
                table = _table(a_ND, b_ND, float(scale), members, "kept")
                places_R = table.places_R
                p_RD = _pull(table, own_N[places_R], g_N[places_R], other_N, g_N, ctx.backend)
                gradients.append(_all_rows(p_RD, a_ND, members))
            by_scale = (slope * gradient).to(scale.dtype).reshape(scale.shape)
        parts = (first_order_only(part, x_ND, y_ND, scale, gradient) for part in (*gradients, by_scale))
        return (*parts, None, None)


def _table(x_ND: Tensor, y_ND: Tensor, scale: float, members: Members, own: Own) -> Table:
    codes_N = members.codes_N
    if members.places_R is None:
        places_R = torch.arange(members.size, device=x_ND.device)
        return Table(x_ND, y_ND, scale, places_R, codes_N, codes_N, own)
    codes_R = None if codes_N is None else codes_N[members.places_R]
    return Table(x_ND[members.places_R], y_ND, scale, members.places_R, codes_R, codes_N, own)


def _all_rows(p_RD: Tensor, like_ND: Tensor, members: Members) -> Tensor:
    """Gradients of own rows, 0 at all others, in the dtype of the rows."""
    if members.places_R is None:
        return p_RD.to(like_ND.dtype)
    gradient_ND = torch.zeros_like(like_ND)
    gradient_ND[members.places_R] = p_RD.to(like_ND.dtype)
    return gradient_ND


def _log_sums(table: Table, backend: Backend) -> Tensor:
    if backend == "triton":
        return _triton().log_sums(table)  # type: ignore[no-any-return]
    return _rows.log_sums(table, compiled=backend == "compiled")


def _log_sums_and_means(table: Table, backend: Backend) -> tuple[Tensor, Tensor]:
    if backend == "triton":
        return _triton().log_sums_and_means(table)  # type: ignore[no-any-return]
    return _rows.log_sums_and_means(table, compiled=backend == "compiled")


def _pull(table: Table, r_R: Tensor, g_R: Tensor, c_N: Tensor, h_N: Tensor, backend: Backend) -> Tensor:
    if backend == "triton":
        return _triton().pull(table, r_R, g_R, c_N, h_N)  # type: ignore[no-any-return]
    return _rows.pull(table, r_R, g_R, c_N, h_N, compiled=backend == "compiled")


def _triton() -> ModuleType:
    from unialign.kernels import _triton as kernels

    return kernels
