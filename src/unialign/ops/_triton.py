"""The sums of `_rows` as Triton kernels: what a tile holds never leaves the chip.

Inputs float32 (as IEEE or TF32 products), float16 or bfloat16; sums are float32. One program owns a block of rows and
walks over all columns, so that there are no atomics and equal calls give equal bits. Where D is wider than a program's
accumulator, programs of one block each make a part of the result and the logits are formed again for each part.

Calling them needs the package `triton`; importing this file does not.

Shapes: `R` rows, `N` columns, `D` width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unialign.ops._row_sums_torch import Table

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = tl = None

__all__ = ["accumulate_grad", "log_sums", "log_sums_and_means"]

_LOG2E = 1.4426950408889634


def _jit(kernel: Any) -> Any:
    return kernel if triton is None else triton.jit(kernel)


@_jit
def _logits2(
    x_ptr,
    y_ptr,
    code_r,
    codes_ptr,
    place,
    row,
    column,
    rows,
    columns,
    scale2,
    WIDTH: tl.constexpr,
    BLOCK_K: tl.constexpr,
    HAS_CODES: tl.constexpr,
    OWN_KEPT: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """A tile of logits in base 2, -inf where a row may not see a column."""
    products = tl.zeros((BLOCK_R, BLOCK_N), dtype=tl.float32)
    for first in range(0, WIDTH, BLOCK_K):
        k = first + tl.arange(0, BLOCK_K)
        x = tl.load(
            x_ptr + row[:, None].to(tl.int64) * WIDTH + k[None, :],
            mask=(row[:, None] < rows) & (k[None, :] < WIDTH),
            other=0.0,
        )
        y = tl.load(
            y_ptr + column[None, :].to(tl.int64) * WIDTH + k[:, None],
            mask=(column[None, :] < columns) & (k[:, None] < WIDTH),
            other=0.0,
        )
        products = tl.dot(x, y, products, input_precision=PRECISION)
    own = place[:, None] == column[None, :]
    seen = column[None, :] < columns
    if HAS_CODES:
        code = tl.load(codes_ptr + column, mask=column < columns, other=-1)
        # A row's own column has its code.
        seen = seen & (code_r[:, None] != code[None, :])
        if OWN_KEPT:
            seen = seen | own
    else:
        if not OWN_KEPT:
            seen = seen & (place[:, None] != column[None, :])
    return tl.where(seen, products * scale2, float("-inf"))


@_jit
def _log_sums_kernel(
    x_ptr,
    y_ptr,
    places_ptr,
    codes_r_ptr,
    codes_ptr,
    out_ptr,
    mean_ptr,
    rows,
    columns,
    scale2,
    WIDTH: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    HAS_CODES: tl.constexpr,
    OWN_KEPT: tl.constexpr,
    PRECISION: tl.constexpr,
    MEANS: tl.constexpr,
):
    row = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    place = tl.load(places_ptr + row, mask=row < rows, other=-1)
    code_r = tl.load(codes_r_ptr + row, mask=row < rows, other=-2) if HAS_CODES else place
    highest = tl.full((BLOCK_R,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((BLOCK_R,), dtype=tl.float32)
    weighted = tl.zeros((BLOCK_R,), dtype=tl.float32)
    for first in range(0, columns, BLOCK_N):
        column = first + tl.arange(0, BLOCK_N)
        s = _logits2(
            x_ptr, y_ptr, code_r, codes_ptr, place, row, column, rows, columns, scale2,
            WIDTH, BLOCK_K, HAS_CODES, OWN_KEPT, PRECISION, BLOCK_R, BLOCK_N,
        )  # fmt: skip
        higher = tl.maximum(highest, tl.max(s, 1))
        # Nothing seen so far: -inf - -inf would be NaN.
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
def _pull_kernel(
    x_ptr,
    y_ptr,
    places_ptr,
    codes_r_ptr,
    codes_ptr,
    r_ptr,
    g_ptr,
    c_ptr,
    h_ptr,
    out_ptr,
    rows,
    columns,
    scale2,
    scale,
    WIDTH: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
    HAS_CODES: tl.constexpr,
    OWN_KEPT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    row = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    place = tl.load(places_ptr + row, mask=row < rows, other=-1)
    code_r = tl.load(codes_r_ptr + row, mask=row < rows, other=-2) if HAS_CODES else place
    r2 = tl.load(r_ptr + row, mask=row < rows, other=float("inf")) * 1.4426950408889634
    g = tl.load(g_ptr + row, mask=row < rows, other=0.0)
    pulled = tl.zeros((BLOCK_R, BLOCK_D), dtype=tl.float32)
    for first in range(0, columns, BLOCK_N):
        column = first + tl.arange(0, BLOCK_N)
        s = _logits2(
            x_ptr, y_ptr, code_r, codes_ptr, place, row, column, rows, columns, scale2,
            WIDTH, BLOCK_K, HAS_CODES, OWN_KEPT, PRECISION, BLOCK_R, BLOCK_N,
        )  # fmt: skip
        c2 = tl.load(c_ptr + column, mask=column < columns, other=float("inf")) * 1.4426950408889634
        h = tl.load(h_ptr + column, mask=column < columns, other=0.0)
        weight = g[:, None] * tl.exp2(s - r2[:, None]) + h[None, :] * tl.exp2(s - c2[None, :])
        y = tl.load(
            y_ptr + column[:, None].to(tl.int64) * WIDTH + d[None, :],
            mask=(column[:, None] < columns) & (d[None, :] < WIDTH),
            other=0.0,
        )
        pulled = tl.dot(weight.to(y.dtype), y, pulled, input_precision=PRECISION)
    tl.store(
        out_ptr + row[:, None].to(tl.int64) * WIDTH + d[None, :],
        pulled * scale,
        mask=(row[:, None] < rows) & (d[None, :] < WIDTH),
    )


def log_sums(table: Table) -> Tensor:
    """(R,) r, float32."""
    r_R = torch.empty(len(table.x_RD), dtype=torch.float32, device=table.x_RD.device)
    _sum_rows(table, r_R, None)
    return r_R


def log_sums_and_means(table: Table) -> tuple[Tensor, Tensor]:
    """(R,) r and m, float32."""
    r_R = torch.empty(len(table.x_RD), dtype=torch.float32, device=table.x_RD.device)
    m_R = torch.zeros_like(r_R)
    _sum_rows(table, r_R, m_R)
    return r_R, m_R


def _sum_rows(table: Table, r_R: Tensor, m_R: Tensor | None) -> None:
    if len(r_R) == 0 or len(table.y_ND) == 0:
        r_R.fill_(-torch.inf)
        return
    block_r, block_n, block_k = _blocks(table)
    _log_sums_kernel[(triton.cdiv(len(r_R), block_r),)](
        *_pointers(table), r_R, r_R if m_R is None else m_R, len(r_R), len(table.y_ND), table.scale * _LOG2E,
        table.x_RD.shape[1], block_r, block_n, block_k, table.codes_N is not None, table.own == "kept",
        _precision(table), m_R is not None,
    )  # fmt: skip


def accumulate_grad(table: Table, r_R: Tensor, g_R: Tensor, c_N: Tensor, h_N: Tensor) -> Tensor:
    """(R, D) p, float32."""
    rows, width = table.x_RD.shape
    p_RD = torch.zeros(rows, width, dtype=torch.float32, device=table.x_RD.device)
    if rows == 0 or len(table.y_ND) == 0:
        return p_RD
    # exp(s - inf) = 0: what sees nothing, or is seen by nobody, has no part.
    r_R, c_N = (torch.where(x == -torch.inf, torch.inf, x).float().contiguous() for x in (r_R, c_N))
    block_r, block_n, block_k = _blocks(table)
    block_d = min(512, max(16, triton.next_power_of_2(width)))
    _pull_kernel[(triton.cdiv(rows, block_r), triton.cdiv(width, block_d))](
        *_pointers(table), r_R, g_R.float().contiguous(), c_N, h_N.float().contiguous(), p_RD,
        rows, len(table.y_ND), table.scale * _LOG2E, table.scale, width,
        block_r, block_n, block_k, block_d, table.codes_N is not None, table.own == "kept", _precision(table),
        num_warps=8,
    )  # fmt: skip
    return p_RD


def _pointers(table: Table) -> tuple[Any, ...]:
    places_R = table.places_R.to(torch.int32)
    codes = (table.codes_R, table.codes_N) if table.codes_N is not None else (places_R, places_R)
    return table.x_RD.contiguous(), table.y_ND.contiguous(), places_R, *codes


def _blocks(table: Table) -> tuple[int, int, int]:
    """Rows, columns and width of what a program multiplies at once; a product's sides are 16 at least."""
    width = max(16, triton.next_power_of_2(table.x_RD.shape[1]))
    return 64, 64, min(64, width)


def _precision(table: Table) -> str:
    allowed = table.x_RD.dtype != torch.float32 or torch.backends.cuda.matmul.allow_tf32
    return "tf32" if allowed else "ieee"
