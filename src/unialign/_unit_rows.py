"""Rows to unit length, with one allocation of the size of the result; for the gradient the rows themselves are kept.

A caller has them anyway. Unit rows that were kept instead would still be there when the gradient by the rows is made,
long after the losses have let go of them. They are kept where rows are a small part of something larger that would be
held on to, such as one token of each sequence. Rows without gradient are not kept at all.

Shapes: `M` modalities, `B` rows, `D` width.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["largest_entries", "unit_rows"]

# Entries of a piece of rows, a few of which are all that the arithmetic needs beside its result: on a CPU 256 KiB of
# float32, which stay in a core's cache; elsewhere more, since every piece costs launches.
_PIECE, _PIECE_CPU = 2**18, 2**16


def largest_entries(raw: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Largest absolute entry of each row of M tensors (B, D): (M, B), detached; NaN where a row holds one."""
    first = raw[0]
    result_MB = torch.empty(len(raw), first.shape[0], dtype=dtype, device=first.device)
    with torch.no_grad():
        for x_BD, largest_B in zip(raw, result_MB, strict=True):
            for rows in _pieces(x_BD):
                x_bD = x_BD[rows].to(dtype)
                # Ten times as fast as the infinity norm, and without a copy of absolute values.
                torch.maximum(x_bD.amax(-1), -x_bD.amin(-1), out=largest_B[rows])
    return result_MB


def unit_rows(raw: Sequence[Tensor], largest_MB: Tensor, present_MB: Tensor | None) -> Tensor:
    """z = x / |x| of each row of M tensors (B, D): (M, B, D) in the dtype of `largest_MB`.

    Its gradient is (g - z <z, g>) / |x|, for which z is formed once more. It can be differentiated again.

    Args:
        largest_MB: what `largest_entries` gave; rows that are present must have a direction.
        present_MB: rows where it is False become exactly 0 whatever they hold, and pass no gradient. None: all are.
    """
    if present_MB is not None:
        # Absent rows may hold NaN: no derivative may divide by it.
        largest_MB = largest_MB.masked_fill(~present_MB, 1)
    z_MBD, _ = _UnitRows.apply(largest_MB, present_MB, *raw)  # type: ignore[no-untyped-call]
    result: Tensor = z_MBD
    return result


class _UnitRows(torch.autograd.Function):
    """Two outputs: z, and s = |x| / (largest entry of x), through which a second derivative reaches the norm.

    Dividing by the largest entry first keeps the norm of huge and tiny rows finite. z does not depend on that number,
    and |x| = s times it, so that it may count as a constant in every derivative.
    """

    @staticmethod
    def forward(ctx: Any, largest_MB: Tensor, present_MB: Tensor | None, *raw: Tensor) -> tuple[Tensor, Tensor]:
        items, width = raw[0].shape
        z_MBD = largest_MB.new_empty(len(raw), items, width)
        s_MB = torch.empty_like(largest_MB)
        for m, x_BD in enumerate(raw):
            for rows in _pieces(x_BD):
                z_bD, x_bD = z_MBD[m, rows], x_BD[rows].to(z_MBD.dtype)
                torch.div(x_bD, largest_MB[m, rows, None], out=z_bD)
                if present_MB is not None:
                    # Overwritten, not multiplied by 0: absent rows may hold NaN.
                    z_bD.masked_fill_(~present_MB[m, rows, None], 0)
                s_b1 = torch.linalg.vector_norm(z_bD, dim=-1, keepdim=True)
                if present_MB is not None:
                    s_b1.masked_fill_(~present_MB[m, rows, None], 1)
                s_MB[m, rows] = s_b1[:, 0]
                z_bD /= s_b1
        ctx.set_materialize_grads(False)
        needed = ctx.needs_input_grad[2:]
        kept = [x_BD if wanted and not _is_part(x_BD) else None for x_BD, wanted in zip(raw, needed, strict=True)]
        parts = any(wanted and x_BD is None for x_BD, wanted in zip(kept, needed, strict=True))
        ctx.width = width
        ctx.dtypes = [x_BD.dtype for x_BD in raw]
        ctx.save_for_backward(z_MBD if parts else None, s_MB, largest_MB, present_MB, *kept)
        return z_MBD, s_MB

    @staticmethod
    def backward(ctx: Any, g_MBD: Tensor | None, h_MB: Tensor | None) -> tuple[Tensor | None, ...]:
        z_MBD, s_MB, largest_MB, present_MB, *kept = ctx.saved_tensors
        gradients: list[Tensor | None] = []
        for m, (x_BD, dtype, needed) in enumerate(zip(kept, ctx.dtypes, ctx.needs_input_grad[2:], strict=True)):
            if not needed or (g_MBD is None and h_MB is None):
                gradients.append(None)
                continue

            def pulled(rows: slice, m: int = m, x_BD: Tensor | None = x_BD) -> Tensor:
                s_b, largest_b = s_MB[m, rows], largest_MB[m, rows]
                present_b = None if present_MB is None else present_MB[m, rows]
                if x_BD is None:
                    z_bD = z_MBD[m, rows]
                else:
                    z_bD = _unit(x_BD[rows].to(s_b.dtype), s_b, largest_b, present_b)
                g_bD, h_b = None if g_MBD is None else g_MBD[m, rows], None if h_MB is None else h_MB[m, rows]
                return _pull(g_bD, h_b, z_bD, s_b, largest_b, present_b)

            if torch.is_grad_enabled():
                # To be differentiated again: whole, so that the graph is small.
                gradients.append(pulled(slice(None)).to(dtype))
                continue
            gradient_BD = torch.empty(*s_MB.shape[1:], ctx.width, dtype=dtype, device=s_MB.device)
            for rows in _pieces(gradient_BD):
                gradient_BD[rows] = pulled(rows)
            gradients.append(gradient_BD)
        return None, None, *gradients


def _is_part(x_BD: Tensor) -> bool:
    return x_BD.untyped_storage().nbytes() > 2 * x_BD.numel() * x_BD.element_size()


def _unit(x_bD: Tensor, s_b: Tensor, largest_b: Tensor, present_b: Tensor | None) -> Tensor:
    """As in the forward pass, operation by operation."""
    z_bD = x_bD / largest_b[:, None]
    if present_b is not None:
        z_bD = z_bD.masked_fill(~present_b[:, None], 0)
    return z_bD / s_b[:, None]


def _pull(
    g_bD: Tensor | None, h_b: Tensor | None, z_bD: Tensor, s_b: Tensor, largest_b: Tensor, present_b: Tensor | None
) -> Tensor:
    """((g - z <z, g>) / s + z h) / largest: the gradient by x of <g, z> + h s."""
    result_bD = None
    if g_bD is not None:
        result_bD = torch.addcmul(g_bD, z_bD, (z_bD * g_bD).sum(-1, keepdim=True), value=-1) / s_b[:, None]
    if h_b is not None:
        through_norm_bD = z_bD * h_b[:, None]
        result_bD = through_norm_bD if result_bD is None else result_bD + through_norm_bD
    assert result_bD is not None
    # In two steps: the product of s and a largest entry near the end of the dtype is infinite.
    result_bD = result_bD / largest_b[:, None]
    return result_bD if present_b is None else result_bD.masked_fill(~present_b[:, None], 0)


def _pieces(x_BD: Tensor) -> Iterator[slice]:
    piece = _PIECE_CPU if x_BD.device.type == "cpu" else _PIECE
    step = max(1, piece // x_BD.shape[1])
    for start in range(0, x_BD.shape[0], step):
        yield slice(start, start + step)
