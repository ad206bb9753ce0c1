"""Uniformity and InfoNCE from the row sums of `_row_sums_torch`, with Triton kernels, compiled tiles or plain tiles.

Each process computes complete local rows, so the same pass works on one process and on many. Symmetry is not used
here: on a GPU it would require atomics, whose summation order is nondeterministic.

Shapes: `N` selected rows, `R` local ones, `D` dimension.
"""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from unialign._single_backward import first_order_only
from unialign.ops import _row_sums_torch
from unialign.ops._backend import Backend
from unialign.ops._row_selection import RowSelection, SelfPairs
from unialign.ops._row_sums_torch import LogitMatrix
from unialign.ops._tiles import row_tiles

__all__ = ["log_row_sums", "mean_excess"]


def log_row_sums(
    z_ND: Tensor, *, rate: float, selection: RowSelection, backend: Backend, self_pairs: SelfPairs = "excluded"
) -> Tensor:
    """Return (N,) log sum over the k of another id, and k = i if included, of exp(rate (<z_i, z_k> - 1)).

    -inf for an empty sum.
    """
    sums_N: Tensor = _RowSums.apply(z_ND, rate, selection, self_pairs, backend)  # type: ignore[no-untyped-call]
    return sums_N


def mean_excess(x_ND: Tensor, y_ND: Tensor, scale: Tensor, *, selection: RowSelection, backend: Backend) -> Tensor:
    """Return 1/(2N) sum_i (log sum_k exp(s_ik) - s_ii + log sum_k exp(s_ki) - s_ii), s = scale x y^T, k = i or of
    another id.

    This is InfoNCE without smoothing, at least 0. Positives are added in float64 to keep precision near 0.

    Args:
        scale: scalar tensor, differentiable. On several processes, each gets the gradient over all rows.
    """
    value: Tensor = _MeanExcess.apply(x_ND, y_ND, scale, selection, backend)  # type: ignore[no-untyped-call]
    return value


class _RowSums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, z_ND: Tensor, rate: float, selection: RowSelection, self_pairs: SelfPairs, backend: Backend
    ) -> Tensor:
        r_N = selection.gather(_log_sums(_logit_matrix(z_ND, z_ND, rate, selection, self_pairs), backend))
        ctx.save_for_backward(z_ND, r_N)
        ctx.rest = rate, selection, self_pairs, backend
        return r_N - rate

    @staticmethod
    def backward(ctx: Any, g_N: Tensor) -> tuple[Tensor | None, ...]:
        z_ND, r_N = ctx.saved_tensors
        rate, selection, self_pairs, backend = ctx.rest
        with torch.no_grad():
            matrix = _logit_matrix(z_ND, z_ND, rate, selection, self_pairs)
            local_R = matrix.local_R
            p_RD = _accumulate_grad(matrix, r_N[local_R], g_N[local_R], r_N, g_N, backend)
            gradient_ND = selection.scatter(p_RD, z_ND)
        return first_order_only(gradient_ND, z_ND, g_N), None, None, None, None


class _MeanExcess(torch.autograd.Function):
    """Mean of the excess e_i = log(1 + exp(rest_i - positive_i)); exp(-e_i) is the probability of the positive."""

    @staticmethod
    def forward(
        ctx: Any, x_ND: Tensor, y_ND: Tensor, scale: Tensor, selection: RowSelection, backend: Backend
    ) -> Tensor:
        factor = float(scale)
        by_row = _logit_matrix(x_ND, y_ND, factor, selection, "excluded")
        by_column = _logit_matrix(y_ND, x_ND, factor, selection, "excluded")
        positive_R = _positive_logits(by_row)
        # The derivative with respect to the scale is computed with the sums, so that both share one gather.
        columns = [positive_R]
        for matrix in (by_row, by_column):
            columns += _excesses(matrix, positive_R, backend, with_slope=ctx.needs_input_grad[2])
        positive_N, *rest = selection.gather(torch.stack(columns, 1)).unbind(1)
        row_excess_N, column_excess_N = rest[:: len(rest) // 2]
        count = max(1, 2 * len(positive_N))
        by_scale = positive_N.new_zeros(())
        if ctx.needs_input_grad[2]:
            by_scale = (rest[1].sum() + rest[3].sum()) / (factor * count)
        ctx.save_for_backward(x_ND, y_ND, scale, positive_N, row_excess_N, column_excess_N, by_scale)
        ctx.rest = selection, backend
        return ((row_excess_N.sum() + column_excess_N.sum()) / count).to(scale.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x_ND, y_ND, scale, positive_N, row_excess_N, column_excess_N, slope = ctx.saved_tensors
        selection, backend = ctx.rest
        with torch.no_grad():
            g_N = (gradient.double() / max(1, 2 * len(positive_N))).expand(len(positive_N))
            # exp(-e) - 1, the probability of the positive minus 1, in both directions.
            by_positive_N = g_N * (torch.expm1(-row_excess_N) + torch.expm1(-column_excess_N))
            gradients = []
            for a_ND, b_ND, excess_N, other_N in (
                (x_ND, y_ND, row_excess_N, column_excess_N),
                (y_ND, x_ND, column_excess_N, row_excess_N),
            ):
                matrix = _logit_matrix(a_ND, b_ND, float(scale), selection, "excluded")
                local_R, dtype = matrix.local_R, a_ND.dtype
                r_N, c_N = ((positive_N + e_N).to(dtype) for e_N in (excess_N, other_N))
                h_N = g_N.to(dtype)
                p_RD = _accumulate_grad(matrix, r_N[local_R], h_N[local_R], c_N, h_N, backend)
                p_RD.addcmul_(b_ND[local_R].to(p_RD.dtype), (by_positive_N[local_R, None] * scale).to(p_RD.dtype))
                gradients.append(selection.scatter(p_RD, a_ND))
            by_scale = (slope * gradient).to(scale.dtype).reshape(scale.shape)
        parts = (first_order_only(part, x_ND, y_ND, scale, gradient) for part in (*gradients, by_scale))
        return (*parts, None, None)


def _excesses(matrix: LogitMatrix, positive_R: Tensor, backend: Backend, *, with_slope: bool) -> list[Tensor]:
    """Return (R,) e in float64 and, if requested, scale de/dscale."""
    zero = positive_R.new_zeros(())
    if not with_slope:
        return [torch.logaddexp(zero, _log_sums(matrix, backend).double() - positive_R)]
    rest_R, mean_R = _log_sums_and_means(matrix, backend)
    excess_R = torch.logaddexp(zero, rest_R.double() - positive_R)
    return [excess_R, -torch.expm1(-excess_R) * (mean_R.double() - positive_R)]


def _positive_logits(matrix: LogitMatrix) -> Tensor:
    """Return (R,) scale <x_i, y_i> in float64, computed in blocks of rows."""
    positive_R = torch.empty(len(matrix.x_RD), dtype=torch.float64, device=matrix.x_RD.device)
    for rows in row_tiles(len(positive_R), matrix.x_RD.shape[1]):
        positive_R[rows] = (matrix.x_RD[rows].double() * matrix.y_ND[matrix.local_R[rows]].double()).sum(1)
    return positive_R.mul_(matrix.scale)


def _logit_matrix(
    x_ND: Tensor, y_ND: Tensor, scale: float, selection: RowSelection, self_pairs: SelfPairs
) -> LogitMatrix:
    codes_N, local_R = selection.codes_N, selection.local_R
    if local_R is None:
        local_R = torch.arange(selection.size, device=x_ND.device)
        return LogitMatrix(x_ND, y_ND, scale, local_R, codes_N, codes_N, self_pairs)
    codes_R = None if codes_N is None else codes_N[local_R]
    return LogitMatrix(x_ND[local_R], y_ND, scale, local_R, codes_R, codes_N, self_pairs)


def _log_sums(matrix: LogitMatrix, backend: Backend) -> Tensor:
    if backend == "triton":
        return _triton().log_sums(matrix)  # type: ignore[no-any-return]
    return _row_sums_torch.log_sums(matrix, compiled=backend == "compiled")


def _log_sums_and_means(matrix: LogitMatrix, backend: Backend) -> tuple[Tensor, Tensor]:
    if backend == "triton":
        return _triton().log_sums_and_means(matrix)  # type: ignore[no-any-return]
    return _row_sums_torch.log_sums_and_means(matrix, compiled=backend == "compiled")


def _accumulate_grad(
    matrix: LogitMatrix, r_R: Tensor, g_R: Tensor, c_N: Tensor, h_N: Tensor, backend: Backend
) -> Tensor:
    if backend == "triton":
        return _triton().accumulate_grad(matrix, r_R, g_R, c_N, h_N)  # type: ignore[no-any-return]
    return _row_sums_torch.accumulate_grad(matrix, r_R, g_R, c_N, h_N, compiled=backend == "compiled")


def _triton() -> ModuleType:
    from unialign.ops import _row_sums_triton

    return _row_sums_triton
