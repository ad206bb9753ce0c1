"""Compute Gram matrices of tuples in float64, since float32 determinants of nearly equal vectors are rounding noise.

Shapes: `M` modalities, `B` items, `D` dimension.
"""

from typing import Any

import torch
from torch import Tensor


def float64_gram(z_MBD: Tensor) -> Tensor:
    """Save `z_MBD` instead of a float64 copy for the backward pass."""
    gram_BMM: Tensor = _Float64Gram.apply(z_MBD)  # type: ignore[no-untyped-call]
    return gram_BMM


def masked_gram(z_MBD: Tensor, present_MB: Tensor) -> Tensor:
    """Absent modalities are orthonormal vectors."""
    gram_BMM = float64_gram(z_MBD)
    return gram_BMM + torch.diag_embed((~present_MB).to(gram_BMM.dtype).mT)


def to_float64(x: Tensor) -> Tensor:
    """MPS does not support float64."""
    return x.double() if x.device.type != "mps" else x


class _Float64Gram(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z_MBD: Tensor) -> Tensor:
        ctx.save_for_backward(z_MBD)
        z_BMD = to_float64(z_MBD).transpose(0, 1)
        return z_BMD @ z_BMD.mT

    @staticmethod
    def backward(ctx: Any, gradient_BMM: Tensor) -> Tensor:
        (z_MBD,) = ctx.saved_tensors
        z_BMD = to_float64(z_MBD).transpose(0, 1)
        return ((gradient_BMM + gradient_BMM.mT) @ z_BMD).transpose(0, 1).to(z_MBD.dtype)
