"""Compare Triton kernels with the torch implementation, on a GPU or in Triton's interpreter (TRITON_INTERPRET=1)."""

import os
from dataclasses import replace

import pytest
import torch

from unialign.ops import _row_sums_torch, _row_sums_triton as triton_kernels
from unialign.ops._row_selection import SelfPairs
from unialign.ops._row_sums_torch import LogitMatrix

pytest.importorskip("triton", reason="needs the extra `triton`")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs a GPU, or TRITON_INTERPRET=1", allow_module_level=True)


def draw_table(
    rows: int,
    columns: int,
    dim: int,
    *,
    self_pairs: SelfPairs,
    ids: bool,
    scale: float = 10.0,
    dtype: torch.dtype = torch.float32,
) -> LogitMatrix:
    generator = torch.Generator().manual_seed(rows + 31 * columns + 997 * dim)
    y_ND = torch.nn.functional.normalize(torch.randn(columns, dim, generator=generator), dim=1)
    local_R = torch.randperm(columns, generator=generator)[:rows].sort().values
    x_RD = y_ND[local_R] if self_pairs == "excluded" else torch.nn.functional.normalize(
        y_ND[local_R] + 0.5 * torch.randn(rows, dim, generator=generator), dim=1
    )  # fmt: skip
    codes_N = torch.randint(0, max(1, columns // 2), (columns,), generator=generator).sort().values.int()
    return LogitMatrix(
        x_RD.to(DEVICE, dtype),
        y_ND.to(DEVICE, dtype),
        scale,
        local_R.to(DEVICE),
        codes_N.to(DEVICE) if ids else None,
        self_pairs,
    )


def in_float64(table: LogitMatrix) -> LogitMatrix:
    return replace(table, x_RD=table.x_RD.double(), y_ND=table.y_ND.double())


CASES = [(1, 1, 1), (3, 5, 7), (64, 64, 64), (65, 130, 33), (100, 100, 100), (17, 129, 600)]


@pytest.mark.parametrize("self_pairs", ["included", "excluded"])
@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize(("rows", "columns", "dim"), CASES)
def test_sums_and_gradients_equal_the_tiles_in_float64(rows, columns, dim, ids, self_pairs):
    table = draw_table(rows, columns, dim, self_pairs=self_pairs, ids=ids)
    wide = in_float64(table)
    r_R, m_R = _row_sums_torch.log_sums(wide, with_means=True)
    found_r, found_m = triton_kernels.log_sums(table, with_means=True)
    torch.testing.assert_close(found_r.double(), r_R, rtol=1e-6, atol=2e-6)
    assert torch.equal(found_r, triton_kernels.log_sums(table)[0])
    torch.testing.assert_close(found_m.double(), m_R, rtol=1e-5, atol=1e-5)
    generator = torch.Generator().manual_seed(5)
    g_R, h_N = (torch.rand(size, generator=generator).to(DEVICE) for size in (rows, columns))
    c_N = torch.rand(columns, generator=generator).to(DEVICE) + 10
    c_N[0] = -torch.inf
    expected = _row_sums_torch.accumulate_grad(wide, r_R, g_R.double(), c_N.double(), h_N.double())
    found = triton_kernels.accumulate_grad(table, r_R.float(), g_R, c_N, h_N)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=2e-5 * float(expected.abs().max() + 1e-12))


# The interpreter does not support bfloat16; it multiplies the bits as integers.
HALF = [torch.float16] if DEVICE == "cpu" else [torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", HALF)
def test_half_precision_rows_are_summed_in_float32(dtype):
    table = draw_table(40, 90, 48, self_pairs="excluded", ids=True, dtype=dtype)
    r_R = _row_sums_torch.log_sums(in_float64(table))[0]
    torch.testing.assert_close(triton_kernels.log_sums(table)[0].double(), r_R, rtol=1e-4, atol=1e-4)
    ones_R, ones_N = torch.ones(40, device=DEVICE), torch.ones(90, device=DEVICE)
    c_N = torch.full((90,), 10.0, device=DEVICE)
    expected = _row_sums_torch.accumulate_grad(in_float64(table), r_R, ones_R.double(), c_N.double(), ones_N.double())
    found = triton_kernels.accumulate_grad(table, r_R.float(), ones_R, c_N, ones_N)
    assert float((found.double() - expected).norm() / expected.norm()) < 1e-2


def test_small_temperatures_neither_underflow_nor_overflow():
    table = draw_table(30, 30, 16, self_pairs="excluded", ids=False, scale=400.0)
    r_R = _row_sums_torch.log_sums(in_float64(table))[0]
    torch.testing.assert_close(triton_kernels.log_sums(table)[0].double(), r_R, rtol=1e-5, atol=1e-4)
    assert torch.isfinite(triton_kernels.log_sums(table)[0]).all()


def test_rows_without_columns_have_sum_minus_infinity_and_gradient_zero():
    table = draw_table(4, 4, 8, self_pairs="excluded", ids=True)
    one = torch.zeros_like(table.codes_N)
    alone = LogitMatrix(table.x_RD, table.y_ND, 10.0, table.local_R, one, "excluded")
    r_R, m_R = triton_kernels.log_sums(alone, with_means=True)
    assert (r_R == -torch.inf).all()
    ones = torch.ones(4, device=DEVICE)
    assert (triton_kernels.accumulate_grad(alone, r_R, ones, r_R, ones) == 0).all()
    assert (m_R == 0).all()
