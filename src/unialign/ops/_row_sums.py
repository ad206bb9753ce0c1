"""Uniformity and InfoNCE from the row sums of `_rows`: what runs as Triton kernels, and as compiled tiles.

Every product is formed with whole rows of this process's own, so one pass serves one process and many. A symmetric
table is not visited by halves here: on a GPU that would need atomics, and the order of their sums is chance.

Shapes: `N` members, `R` of them this process's own, `D` width.
"""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from unialign.ops import _row_sums_torch
from unialign.ops._backend import Backend
from unialign.ops._once import first_order_only
from unialign.ops._row_selection import RowSelection
from unialign.ops._row_sums_torch import Own, Table
from unialign.ops._tiles import row_tiles

__all__ = ["log_row_sums", "mean_excess"]


def log_row_sums(
    z_ND: Tensor, *, rate: float, members: RowSelection, backend: Backend, own: Own = "left_out"
) -> Tensor:
    """(N,) log sum over the members k of another id, and k = i if it is kept, of exp(rate (<z_i, z_k> - 1)).

    -inf where there is none.
    """
    sums_N: Tensor = _RowSums.apply(z_ND, rate, members, own, backend)  # type: ignore[no-untyped-call]
    return sums_N


def mean_excess(x_ND: Tensor, y_ND: Tensor, scale: Tensor, *, members: RowSelection, backend: Backend) -> Tensor:
    """1/(2N) sum_i (log sum_k exp(s_ik) - s_ii + log sum_k exp(s_ki) - s_ii), s = scale x y^T, k = i or of another id.

    At least 0: what InfoNCE is without smoothing. Own keys are added in float64: a value near 0 keeps its digits.

    Args:
        scale: scalar tensor, differentiable. On many processes its gradient is that of all rows, the same on each.
    """
    value: Tensor = _MeanExcess.apply(x_ND, y_ND, scale, members, backend)  # type: ignore[no-untyped-call]
    return value


class _RowSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z_ND: Tensor, rate: float, members: RowSelection, own: Own, backend: Backend) -> Tensor:
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
            gradient_ND = ctx.members.broadcast(p_RD, z_ND)
        return first_order_only(gradient_ND, z_ND, g_N), None, None, None, None


class _MeanExcess(torch.autograd.Function):
    """With e_i = log(1 + exp(rest_i - own_i)) the own key has the share exp(-e_i) of a row's sum."""

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, y_ND: Tensor, scale: Tensor, members: RowSelection, backend: Backend) -> Tensor:
        factor = float(scale)
        tables = [_table(a_ND, b_ND, factor, members, "left_out") for a_ND, b_ND in ((x_ND, y_ND), (y_ND, x_ND))]
        own_R = _own_logits(tables[0])
        columns = [own_R]
        for table in tables:
            # The slope by the scale is made here, where it comes together with the sums: one exchange serves both.
            if ctx.needs_input_grad[2]:
                rest_R, mean_R = _log_sums_and_means(table, backend)
                excess_R = torch.logaddexp(own_R.new_zeros(()), rest_R.double() - own_R)
                columns += [excess_R, -torch.expm1(-excess_R) * (mean_R.double() - own_R)]
            else:
                columns.append(torch.logaddexp(own_R.new_zeros(()), _log_sums(table, backend).double() - own_R))
        own_N, *rest = members.gather(torch.stack(columns, 1)).unbind(1)
        by_row_N, by_column_N = rest[:: len(rest) // 2]
        count = max(1, 2 * len(own_N))
        by_scale = (rest[1].sum() + rest[3].sum()) / (factor * count) if len(rest) == 4 else own_N.new_zeros(())
        ctx.save_for_backward(x_ND, y_ND, scale, own_N, by_row_N, by_column_N, by_scale)
        ctx.members, ctx.backend = members, backend
        return ((by_row_N.sum() + by_column_N.sum()) / count).to(scale.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x_ND, y_ND, scale, own_N, by_row_N, by_column_N, slope = ctx.saved_tensors
        members: RowSelection = ctx.members
        with torch.no_grad():
            g_N = (gradient.double() / max(1, 2 * len(own_N))).expand(len(own_N))
            # What the own key's share lacks to 1, on both sides.
            lacking_N = g_N * (torch.expm1(-by_row_N) + torch.expm1(-by_column_N))
            gradients = []
            for a_ND, b_ND, excess_N, other_N in (
                (x_ND, y_ND, by_row_N, by_column_N),
                (y_ND, x_ND, by_column_N, by_row_N),
            ):
                table = _table(a_ND, b_ND, float(scale), members, "left_out")
                places_R, dtype = table.places_R, a_ND.dtype
                r_N, c_N = ((own_N + e_N).to(dtype) for e_N in (excess_N, other_N))
                g_in_dtype_N = g_N.to(dtype)
                p_RD = _pull(table, r_N[places_R], g_in_dtype_N[places_R], c_N, g_in_dtype_N, ctx.backend)
                p_RD.addcmul_(b_ND[places_R].to(p_RD.dtype), (lacking_N[places_R, None] * scale).to(p_RD.dtype))
                gradients.append(members.broadcast(p_RD, a_ND))
            by_scale = (slope * gradient).to(scale.dtype).reshape(scale.shape)
        parts = (first_order_only(part, x_ND, y_ND, scale, gradient) for part in (*gradients, by_scale))
        return (*parts, None, None)


def _own_logits(table: Table) -> Tensor:
    """(R,) scale <x_i, y_i> in float64, in pieces of rows."""
    own_R = torch.empty(len(table.x_RD), dtype=torch.float64, device=table.x_RD.device)
    for rows in row_tiles(len(own_R), table.x_RD.shape[1]):
        own_R[rows] = (table.x_RD[rows].double() * table.y_ND[table.places_R[rows]].double()).sum(1)
    return own_R.mul_(table.scale)


def _table(x_ND: Tensor, y_ND: Tensor, scale: float, members: RowSelection, own: Own) -> Table:
    codes_N = members.codes_N
    if members.places_R is None:
        places_R = torch.arange(members.size, device=x_ND.device)
        return Table(x_ND, y_ND, scale, places_R, codes_N, codes_N, own)
    codes_R = None if codes_N is None else codes_N[members.places_R]
    return Table(x_ND[members.places_R], y_ND, scale, members.places_R, codes_R, codes_N, own)


def _log_sums(table: Table, backend: Backend) -> Tensor:
    if backend == "triton":
        return _triton().log_sums(table)  # type: ignore[no-any-return]
    return _row_sums_torch.log_sums(table, compiled=backend == "compiled")


def _log_sums_and_means(table: Table, backend: Backend) -> tuple[Tensor, Tensor]:
    if backend == "triton":
        return _triton().log_sums_and_means(table)  # type: ignore[no-any-return]
    return _row_sums_torch.log_sums_and_means(table, compiled=backend == "compiled")


def _pull(table: Table, r_R: Tensor, g_R: Tensor, c_N: Tensor, h_N: Tensor, backend: Backend) -> Tensor:
    if backend == "triton":
        return _triton().accumulate_grad(table, r_R, g_R, c_N, h_N)  # type: ignore[no-any-return]
    return _row_sums_torch.accumulate_grad(table, r_R, g_R, c_N, h_N, compiled=backend == "compiled")


def _triton() -> ModuleType:
    from unialign.ops import _triton as kernels

    return kernels
