"""Gram matrices of tuples, in float64: in float32 the determinant of nearly equal vectors is rounding noise.

Shapes: `M` modalities, `B` items, `D` width.
"""

from typing import Any

import torch
from torch import Tensor

__all__ = ["wide", "wide_gram"]


def wide_gram(z_MBD: Tensor) -> Tensor:
    """(B, M, M) inner products of each item's vectors. It keeps `z_MBD` as it is for its gradient, no wider copy."""
    gram_BMM: Tensor = _WideGram.apply(z_MBD)  # type: ignore[no-untyped-call]
    return gram_BMM


def wide(x: Tensor) -> Tensor:
    """In float64; MPS has none, and its users get the best it has."""
    return x.double() if x.device.type != "mps" else x


class _WideGram(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z_MBD: Tensor) -> Tensor:
        ctx.save_for_backward(z_MBD)
        z_BMD = wide(z_MBD).transpose(0, 1)
        return z_BMD @ z_BMD.mT

    @staticmethod
    def backward(ctx: Any, gradient_BMM: Tensor) -> Tensor:
        (z_MBD,) = ctx.saved_tensors
        z_BMD = wide(z_MBD).transpose(0, 1)
        return ((gradient_BMM + gradient_BMM.mT) @ z_BMD).transpose(0, 1).to(z_MBD.dtype)
