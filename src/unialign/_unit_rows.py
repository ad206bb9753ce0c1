"""Normalize rows to unit length with a single allocation of the size of the result.

The input rows are saved for the backward pass, since the caller keeps them in memory anyway. If the input is a small
view of a larger storage, such as one token of each sequence, the unit rows are saved instead so that the storage can be
freed.

Shapes: `M` modalities, `B` rows, `b` rows of a block, `D` dimension.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["is_part", "largest_entries", "normalize_rows"]

# Number of entries per block of rows, to bound the memory of temporaries. On a CPU, a block (256 KiB of float32) fits
# into a core's cache; on other devices, blocks are larger, since each block costs kernel launches.
_BLOCK, _BLOCK_CPU = 2**18, 2**16


def largest_entries(raw: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """(M, B) largest absolute entries, detached; NaN for rows with NaN."""
    first = raw[0]
    result_MB = torch.empty(len(raw), first.shape[0], dtype=dtype, device=first.device)
    with torch.no_grad():
        for x_BD, largest_B in zip(raw, result_MB, strict=True):
            for rows in _blocks(x_BD):
                x_bD = x_BD[rows].to(dtype)
                # This is ten times faster than the infinity norm and does not copy the absolute values.
                torch.maximum(x_bD.amax(-1), -x_bD.amin(-1), out=largest_B[rows])
    return result_MB


def normalize_rows(raw: Sequence[Tensor], largest_MB: Tensor, present_MB: Tensor | None) -> Tensor:
    """Return z = x / |x| as one (M, B, D) tensor; absent rows become exactly 0 and get no gradient. The gradient is (g
    - z <z, g>) / |x|.
    """
    if present_MB is not None:
        # Absent rows may contain NaN, so no derivative may divide by their entries.
        largest_MB = largest_MB.masked_fill(~present_MB, 1)
    z_MBD, _ = _UnitRows.apply(largest_MB, present_MB, *raw)  # type: ignore[no-untyped-call]
    result: Tensor = z_MBD
    return result


class _UnitRows(torch.autograd.Function):
    """s = |x| / largest is an output so that second derivatives can depend on the norm. Dividing by the largest
    absolute entry first avoids overflow and underflow of norms.
    """

    @staticmethod
    def forward(ctx: Any, largest_MB: Tensor, present_MB: Tensor | None, *raw: Tensor) -> tuple[Tensor, Tensor]:
        items, dim = raw[0].shape
        z_MBD = largest_MB.new_empty(len(raw), items, dim)
        s_MB = torch.empty_like(largest_MB)
        for m, x_BD in enumerate(raw):
            for rows in _blocks(x_BD):
                z_bD, x_bD = z_MBD[m, rows], x_BD[rows].to(z_MBD.dtype)
                torch.div(x_bD, largest_MB[m, rows, None], out=z_bD)
                if present_MB is not None:
                    # Overwrite rather than multiply by 0, since absent rows may contain NaN.
                    z_bD.masked_fill_(~present_MB[m, rows, None], 0)
                s_b1 = torch.linalg.vector_norm(z_bD, dim=-1, keepdim=True)
                if present_MB is not None:
                    s_b1.masked_fill_(~present_MB[m, rows, None], 1)
                s_MB[m, rows] = s_b1[:, 0]
                z_bD /= s_b1
        ctx.set_materialize_grads(False)
        needed = ctx.needs_input_grad[2:]
        # Omit `strict=True`, which torch.compile cannot trace before torch 2.10.
        kept = [x_BD if wanted and not is_part(x_BD) else None for x_BD, wanted in zip(raw, needed)]  # noqa: B905
        parts = any(wanted and x_BD is None for x_BD, wanted in zip(kept, needed))  # noqa: B905
        ctx.dim = dim
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

            def gradient_of(rows: slice, m: int = m, x_BD: Tensor | None = x_BD) -> Tensor:
                s_b, largest_b = s_MB[m, rows], largest_MB[m, rows]
                present_b = None if present_MB is None else present_MB[m, rows]
                if x_BD is None:
                    z_bD = z_MBD[m, rows]
                else:
                    z_bD = _unit(x_BD[rows].to(s_b.dtype), s_b, largest_b, present_b)
                g_bD, h_b = None if g_MBD is None else g_MBD[m, rows], None if h_MB is None else h_MB[m, rows]
                return _gradient(g_bD, h_b, z_bD, s_b, largest_b, present_b)

            if torch.is_grad_enabled():
                # Under double backward, use a single block to keep the graph small.
                gradients.append(gradient_of(slice(None)).to(dtype))
                continue
            gradient_BD = torch.empty(*s_MB.shape[1:], ctx.dim, dtype=dtype, device=s_MB.device)
            for rows in _blocks(gradient_BD):
                gradient_BD[rows] = gradient_of(rows)
            gradients.append(gradient_BD)
        return None, None, *gradients


def is_part(x_BD: Tensor) -> bool:
    """Saving the rows would keep alive a storage of more than twice their size."""
    return x_BD.untyped_storage().nbytes() > 2 * x_BD.numel() * x_BD.element_size()


def _unit(x_bD: Tensor, s_b: Tensor, largest_b: Tensor, present_b: Tensor | None) -> Tensor:
    z_bD = x_bD / largest_b[:, None]
    if present_b is not None:
        z_bD = z_bD.masked_fill(~present_b[:, None], 0)
    return z_bD / s_b[:, None]


def _gradient(
    g_bD: Tensor | None, h_b: Tensor | None, z_bD: Tensor, s_b: Tensor, largest_b: Tensor, present_b: Tensor | None
) -> Tensor:
    """((g - z <z, g>) / s + z h) / largest, the gradient of <g, z> + h s with respect to x."""
    result_bD = None
    if g_bD is not None:
        result_bD = torch.addcmul(g_bD, z_bD, (z_bD * g_bD).sum(-1, keepdim=True), value=-1) / s_b[:, None]
    if h_b is not None:
        through_norm_bD = z_bD * h_b[:, None]
        result_bD = through_norm_bD if result_bD is None else result_bD + through_norm_bD
    assert result_bD is not None
    # Divide in two steps, since the product of s and the largest entry may overflow.
    result_bD = result_bD / largest_b[:, None]
    return result_bD if present_b is None else result_bD.masked_fill(~present_b[:, None], 0)


def _blocks(x_BD: Tensor) -> Iterator[slice]:
    entries = _BLOCK_CPU if x_BD.device.type == "cpu" else _BLOCK
    step = max(1, entries // x_BD.shape[1])
    for start in range(0, x_BD.shape[0], step):
        yield slice(start, start + step)
