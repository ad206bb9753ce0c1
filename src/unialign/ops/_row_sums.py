"""Compute uniformity and InfoNCE from row sums, with Triton kernels, compiled tiles or eager tiles.

Each process computes complete sums of its local rows, so the same code runs on one process and on many. The symmetry of
the logits is not used, since on a GPU it would require atomics, which have a nondeterministic summation order.

Shapes: `N` selected rows, `R` local rows, `D` dimension.
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


def rowwise_log_sums(
    z_ND: Tensor, *, rate: float, selection: RowSelection, backend: Backend, self_pairs: SelfPairs = "excluded"
) -> Tensor:
    """Return log sum_k exp(rate (<z_i, z_k> - 1)), shape (N,); -inf for empty sums.

    k runs over the rows with another id and, if self pairs are included, over i.
    """
    sums_N: Tensor = _RowwiseLogSums.apply(z_ND, rate, selection, self_pairs, backend)  # type: ignore[no-untyped-call]
    return sums_N


def mean_excess(x_ND: Tensor, y_ND: Tensor, scale: Tensor, *, selection: RowSelection, backend: Backend) -> Tensor:
    """Symmetric InfoNCE without label smoothing; positives are added in float64 for precision near 0.

    1/(2N) sum_i (log sum_k exp(s_ik) - s_ii + log sum_k exp(s_ki) - s_ii) with s = scale x y^T, where k runs over i and
    the rows with another id. With several processes, each process gets the gradient of the scale over all rows.
    """
    value: Tensor = _MeanExcess.apply(x_ND, y_ND, scale, selection, backend)  # type: ignore[no-untyped-call]
    return value


class _RowwiseLogSums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, z_ND: Tensor, rate: float, selection: RowSelection, self_pairs: SelfPairs, backend: Backend
    ) -> Tensor:
        r_R, _ = _module(backend).log_sums(_logit_matrix(z_ND, z_ND, rate, selection, backend, self_pairs))
        r_N = selection.gather(r_R)
        ctx.save_for_backward(z_ND, r_N)
        ctx.rest = rate, selection, self_pairs, backend
        return r_N - rate

    @staticmethod
    def backward(ctx: Any, g_N: Tensor) -> tuple[Tensor | None, ...]:
        z_ND, r_N = ctx.saved_tensors
        rate, selection, self_pairs, backend = ctx.rest
        with torch.no_grad():
            matrix = _logit_matrix(z_ND, z_ND, rate, selection, backend, self_pairs)
            p_RD = _module(backend).accumulate_grad(matrix, selection.local(r_N), selection.local(g_N), r_N, g_N)
            gradient_ND = selection.scatter(p_RD, z_ND)
        return first_order_only(gradient_ND, z_ND, g_N), None, None, None, None


class _MeanExcess(torch.autograd.Function):
    """Mean of the excesses e_i = log(1 + exp(rest_i - positive_i)), where exp(-e_i) is the positive's probability."""

    @staticmethod
    def forward(
        ctx: Any, x_ND: Tensor, y_ND: Tensor, scale: Tensor, selection: RowSelection, backend: Backend
    ) -> Tensor:
        factor = float(scale)
        by_row = _logit_matrix(x_ND, y_ND, factor, selection, backend)
        by_column = _logit_matrix(y_ND, x_ND, factor, selection, backend)
        positive_R = _positive_logits(by_row)
        # The derivative with respect to the scale is computed together with the sums, so that both share one gather.
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
            # exp(-e) - 1 is the probability of the positive minus 1, here summed over both directions.
            by_positive_N = g_N * (torch.expm1(-row_excess_N) + torch.expm1(-column_excess_N))
            gradients = []
            for a_ND, b_ND, excess_N, other_N in (
                (x_ND, y_ND, row_excess_N, column_excess_N),
                (y_ND, x_ND, column_excess_N, row_excess_N),
            ):
                matrix = _logit_matrix(a_ND, b_ND, float(scale), selection, backend)
                r_N, c_N = ((positive_N + e_N).to(a_ND.dtype) for e_N in (excess_N, other_N))
                h_N = g_N.to(a_ND.dtype)
                p_RD = _module(backend).accumulate_grad(matrix, selection.local(r_N), selection.local(h_N), c_N, h_N)
                by_positive_R1 = (selection.local(by_positive_N)[:, None] * scale).to(p_RD.dtype)
                p_RD.addcmul_(selection.local(b_ND).to(p_RD.dtype), by_positive_R1)
                gradients.append(selection.scatter(p_RD, a_ND))
            by_scale = (slope * gradient).to(scale.dtype).reshape(scale.shape)
        parts = (first_order_only(part, x_ND, y_ND, scale, gradient) for part in (*gradients, by_scale))
        return (*parts, None, None)


def _excesses(matrix: LogitMatrix, positive_R: Tensor, backend: Backend, *, with_slope: bool) -> list[Tensor]:
    """e in float64, shape (R,), and with `with_slope` also scale * de/dscale."""
    rest_R, mean_R = _module(backend).log_sums(matrix, with_means=with_slope)
    excess_R = torch.logaddexp(positive_R.new_zeros(()), rest_R.double() - positive_R)
    return [excess_R] if mean_R is None else [excess_R, -torch.expm1(-excess_R) * (mean_R.double() - positive_R)]


def _positive_logits(matrix: LogitMatrix) -> Tensor:
    """scale <x_i, y_i> in float64."""
    positive_R = torch.empty(len(matrix.x_RD), dtype=torch.float64, device=matrix.x_RD.device)
    for rows in row_tiles(len(positive_R), matrix.x_RD.shape[1]):
        positive_R[rows] = (matrix.x_RD[rows].double() * matrix.y_ND[matrix.local_R[rows]].double()).sum(1)
    return positive_R.mul_(matrix.scale)


def _logit_matrix(
    x_ND: Tensor,
    y_ND: Tensor,
    scale: float,
    selection: RowSelection,
    backend: Backend,
    self_pairs: SelfPairs = "excluded",
) -> LogitMatrix:
    local_R = torch.arange(selection.size, device=x_ND.device) if selection.local_R is None else selection.local_R
    x_RD, compiled = selection.local(x_ND), backend == "compiled"
    return LogitMatrix(x_RD, y_ND, scale, local_R, selection.codes_N, self_pairs, compiled)


def _module(backend: Backend) -> ModuleType:
    if backend != "triton":
        return _row_sums_torch
    from unialign.ops import _row_sums_triton

    return _row_sums_triton
