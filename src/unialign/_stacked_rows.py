"""Normalize the rows of all modalities of a small batch together, in few operations.

Shapes: `M` modalities, `B` rows, `D` dimension.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unialign._unit_rows import is_part

__all__ = ["normalize_stacked"]

# Maximum number of entries of a stacked batch (16 MiB of float32), whose unit rows are saved for the backward pass.
_ENTRIES = 2**22
# Range of norms with squares that neither overflow nor lose precision in float32.
_NORMS = 1e-12, 1e12


def normalize_stacked(raw: Sequence[Tensor], dtype: torch.dtype) -> Tensor | None:
    """Return z = x / |x| as one (M, B, D) tensor, or None for large batches, for rows with extreme norms, and inside
    `torch.compile`, which cannot trace in-place operations on inputs of an `autograd.Function`.
    """
    first = raw[0]
    if torch.compiler.is_compiling():
        return None
    if not 0 < first.numel() * len(raw) <= _ENTRIES or any(x_BD.device != first.device for x_BD in raw):
        return None
    with torch.no_grad():
        x_MBD = _stack(raw, dtype)
        norm_MB1 = torch.linalg.vector_norm(x_MBD, dim=-1, keepdim=True)
        low, high = torch.aminmax(norm_MB1)
        # NaN fails both comparisons.
        if not (float(low) > _NORMS[0] and float(high) < _NORMS[1]):
            return None
    z_MBD: Tensor = _StackedRows.apply(x_MBD, norm_MB1, *raw)[0]  # type: ignore[no-untyped-call]
    return z_MBD


def _stack(raw: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    return torch.stack([x_BD if x_BD.dtype == dtype else x_BD.to(dtype) for x_BD in raw])


class _StackedRows(torch.autograd.Function):
    """The norms are an output so that second derivatives can depend on them."""

    @staticmethod
    def forward(ctx: Any, x_MBD: Tensor, norm_MB1: Tensor, *raw: Tensor) -> tuple[Tensor, Tensor]:
        z_MBD, norm_MB1 = x_MBD.div_(norm_MB1), norm_MB1.view_as(norm_MB1)
        ctx.mark_dirty(x_MBD)
        ctx.set_materialize_grads(False)
        # Save half-precision inputs instead of unit rows: they are smaller, and the caller keeps them in memory anyway.
        smaller = all(needed and x.dtype.itemsize < 4 for x, needed in zip(raw, ctx.needs_input_grad[2:], strict=True))
        ctx.keeps_rows = smaller and not any(is_part(x_BD) for x_BD in raw)
        ctx.dtypes = [x_BD.dtype for x_BD in raw]
        ctx.save_for_backward(norm_MB1, *(raw if ctx.keeps_rows else [z_MBD]))
        return z_MBD, norm_MB1

    @staticmethod
    def backward(ctx: Any, g_MBD: Tensor | None, h_MB1: Tensor | None) -> tuple[Tensor | None, ...]:
        norm_MB1, *rows = ctx.saved_tensors
        z_MBD = _stack(rows, norm_MB1.dtype) / norm_MB1 if ctx.keeps_rows else rows[0]
        result_MBD = None if h_MB1 is None else z_MBD * h_MB1
        if g_MBD is not None:
            tangent_MBD = _tangent(z_MBD, g_MBD, norm_MB1)
            result_MBD = tangent_MBD if result_MBD is None else result_MBD + tangent_MBD
        if result_MBD is None:
            return (None,) * (2 + len(z_MBD))
        return None, None, *(x_BD.to(dtype) for x_BD, dtype in zip(result_MBD.unbind(), ctx.dtypes, strict=True))


def _tangent(z_MBD: Tensor, g_MBD: Tensor, norm_MB1: Tensor) -> Tensor:
    """Return (g - z <z, g>) / |x|."""
    product_MBD = z_MBD * g_MBD
    along_MB1 = product_MBD.sum(-1, keepdim=True)
    if torch.is_grad_enabled():
        return (g_MBD - z_MBD * along_MB1) / norm_MB1
    # Writing to new memory takes longer than the arithmetic.
    torch.mul(z_MBD, along_MB1, out=product_MBD)
    return torch.sub(g_MBD, product_MBD, out=product_MBD).div_(norm_MB1)
