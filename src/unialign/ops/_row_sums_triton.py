"""Compute the sums of `_row_sums_torch` with Triton kernels, which never write tiles to global memory.

Inputs are float32 (IEEE or TF32 products), float16 or bfloat16; sums are float32. Each program computes a block of
rows over all columns, so no atomics are needed and results are deterministic. If D exceeds the accumulator of a
program, several programs recompute the logits, and each program computes a part of the dimensions.

Calling the functions requires the package `triton`; importing this module does not.

Shapes: `R` rows, `N` columns, `D` dimension.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unialign.ops._row_sums_torch import LogitMatrix

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = tl = None

_LOG2E = 1.4426950408889634
# Number of rows, and of columns, of a tile.
_BLOCK = 64


def _jit(kernel: Any) -> Any:
    return kernel if triton is None else triton.jit(kernel)


@_jit
def _logits2(
    x_ptr, y_ptr, code_r, codes_ptr, self_column, row, column, rows, columns, scale2,
    DIM: tl.constexpr, BLOCK_K: tl.constexpr, KEEP_SELF: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Logits in base 2, with -inf at masked entries."""
    products = tl.zeros((row.shape[0], column.shape[0]), dtype=tl.float32)
    for first in range(0, DIM, BLOCK_K):
        k = first + tl.arange(0, BLOCK_K)
        x = tl.load(
            x_ptr + row[:, None].to(tl.int64) * DIM + k[None, :],
            mask=(row[:, None] < rows) & (k[None, :] < DIM),
            other=0.0,
        )
        y = tl.load(
            y_ptr + column[None, :].to(tl.int64) * DIM + k[:, None],
            mask=(column[None, :] < columns) & (k[:, None] < DIM),
            other=0.0,
        )
        products = tl.dot(x, y, products, input_precision=PRECISION)
    code = tl.load(codes_ptr + column, mask=column < columns, other=-1)
    # The self pair also has equal codes.
    kept = (column[None, :] < columns) & (code_r[:, None] != code[None, :])
    if KEEP_SELF:
        kept = kept | (self_column[:, None] == column[None, :])
    return tl.where(kept, products * scale2, float("-inf"))


@_jit
def _log_sums_kernel(
    x_ptr, y_ptr, self_ptr, codes_r_ptr, codes_ptr, out_ptr, mean_ptr, rows, columns, scale2,
    DIM: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    KEEP_SELF: tl.constexpr, PRECISION: tl.constexpr, MEANS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    self_column = tl.load(self_ptr + row, mask=row < rows, other=-1)
    code_r = tl.load(codes_r_ptr + row, mask=row < rows, other=-2)
    highest = tl.full((BLOCK_R,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((BLOCK_R,), dtype=tl.float32)
    weighted = tl.zeros((BLOCK_R,), dtype=tl.float32)
    for first in range(0, columns, BLOCK_N):
        column = first + tl.arange(0, BLOCK_N)
        s = _logits2(
            x_ptr, y_ptr, code_r, codes_ptr, self_column, row, column, rows, columns, scale2,
            DIM, BLOCK_K, KEEP_SELF, PRECISION,
        )  # fmt: skip
        higher = tl.maximum(highest, tl.max(s, 1))
        # The shift is 0 while all logits are -inf, since -inf - (-inf) is NaN.
        shift = tl.where(higher == float("-inf"), 0.0, higher)
        shrink = tl.exp2(highest - shift)
        e = tl.exp2(s - shift[:, None])
        total = total * shrink + tl.sum(e, 1)
        if MEANS:
            weighted = weighted * shrink + tl.sum(e * tl.where(e != 0, s, 0.0), 1)
        highest = higher
    shift = tl.where(highest == float("-inf"), 0.0, highest)
    tl.store(out_ptr + row, (shift + tl.log2(total)) * 0.6931471805599453, mask=row < rows)
    if MEANS:
        mean = weighted / tl.where(total == 0.0, 1.0, total)
        tl.store(mean_ptr + row, mean * 0.6931471805599453, mask=row < rows)


@_jit
def _accumulate_grad_kernel(
    x_ptr, y_ptr, self_ptr, codes_r_ptr, codes_ptr, r_ptr, g_ptr, c_ptr, h_ptr, out_ptr, rows, columns, scale2, scale,
    DIM: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
    KEEP_SELF: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    self_column = tl.load(self_ptr + row, mask=row < rows, other=-1)
    code_r = tl.load(codes_r_ptr + row, mask=row < rows, other=-2)
    r2 = tl.load(r_ptr + row, mask=row < rows, other=float("inf")) * 1.4426950408889634
    g = tl.load(g_ptr + row, mask=row < rows, other=0.0)
    accumulated = tl.zeros((BLOCK_R, BLOCK_D), dtype=tl.float32)
    for first in range(0, columns, BLOCK_N):
        column = first + tl.arange(0, BLOCK_N)
        s = _logits2(
            x_ptr, y_ptr, code_r, codes_ptr, self_column, row, column, rows, columns, scale2,
            DIM, BLOCK_K, KEEP_SELF, PRECISION,
        )  # fmt: skip
        c2 = tl.load(c_ptr + column, mask=column < columns, other=float("inf")) * 1.4426950408889634
        h = tl.load(h_ptr + column, mask=column < columns, other=0.0)
        weight = g[:, None] * tl.exp2(s - r2[:, None]) + h[None, :] * tl.exp2(s - c2[None, :])
        y = tl.load(
            y_ptr + column[:, None].to(tl.int64) * DIM + d[None, :],
            mask=(column[:, None] < columns) & (d[None, :] < DIM),
            other=0.0,
        )
        accumulated = tl.dot(weight.to(y.dtype), y, accumulated, input_precision=PRECISION)
    tl.store(
        out_ptr + row[:, None].to(tl.int64) * DIM + d[None, :],
        accumulated * scale,
        mask=(row[:, None] < rows) & (d[None, :] < DIM),
    )


def log_sums(matrix: LogitMatrix, *, with_means: bool = False) -> tuple[Tensor, Tensor | None]:
    r_R = torch.full((len(matrix.x_RD),), -torch.inf, dtype=torch.float32, device=matrix.x_RD.device)
    m_R = torch.zeros_like(r_R) if with_means else None
    if len(r_R) > 0 and len(matrix.y_ND) > 0:
        pointers = *_pointers(matrix), r_R, r_R if m_R is None else m_R
        _log_sums_kernel[(triton.cdiv(len(r_R), _BLOCK),)](
            *pointers, len(r_R), len(matrix.y_ND), matrix.scale * _LOG2E, **_constants(matrix), MEANS=with_means
        )
    return r_R, m_R


def accumulate_grad(matrix: LogitMatrix, r_R: Tensor, g_R: Tensor, c_N: Tensor, h_N: Tensor) -> Tensor:
    (rows, dim), columns = matrix.x_RD.shape, len(matrix.y_ND)
    p_RD = torch.zeros(rows, dim, dtype=torch.float32, device=matrix.x_RD.device)
    if rows == 0 or columns == 0:
        return p_RD
    # exp(s - inf) = 0, so empty sums contribute nothing.
    r_R, c_N = (torch.where(x == -torch.inf, torch.inf, x).float().contiguous() for x in (r_R, c_N))
    pointers = *_pointers(matrix), r_R, g_R.float().contiguous(), c_N, h_N.float().contiguous(), p_RD
    scales, block_d = (matrix.scale * _LOG2E, matrix.scale), _block_size(dim, 512)
    _accumulate_grad_kernel[(triton.cdiv(rows, _BLOCK), triton.cdiv(dim, block_d))](
        *pointers, rows, columns, *scales, **_constants(matrix), BLOCK_D=block_d, num_warps=8
    )
    return p_RD


def _pointers(matrix: LogitMatrix) -> tuple[Any, ...]:
    codes_N = torch.arange(len(matrix.y_ND), device=matrix.y_ND.device) if matrix.codes_N is None else matrix.codes_N
    codes_N, self_R = codes_N.to(torch.int32), matrix.local_R.to(torch.int32)
    return matrix.x_RD.contiguous(), matrix.y_ND.contiguous(), self_R, codes_N[matrix.local_R], codes_N


def _constants(matrix: LogitMatrix) -> dict[str, Any]:
    dim = matrix.x_RD.shape[1]
    tf32 = matrix.x_RD.dtype != torch.float32 or torch.backends.cuda.matmul.allow_tf32
    blocks = {"BLOCK_R": _BLOCK, "BLOCK_N": _BLOCK, "BLOCK_K": _block_size(dim, _BLOCK)}
    included = matrix.self_pairs == "included"
    return {"DIM": dim, **blocks, "KEEP_SELF": included, "PRECISION": "tf32" if tf32 else "ieee"}


def _block_size(dim: int, most: int) -> int:
    """Smallest power of two of at least `dim`, clamped to [16, most]."""
    return min(most, max(16, int(triton.next_power_of_2(dim))))
