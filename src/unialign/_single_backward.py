"""Raise an error if a closed-form gradient is differentiated again."""

from typing import Any

import torch
from torch import Tensor

from unialign.errors import ConfigError

__all__ = ["first_order_only"]

_CLOSED_FORM = (
    "this loss has a closed-form gradient and no second derivative; to differentiate twice, compute the loss inside "
    "`with unialign.ops.use_backend('reference'):`, which stores full B x B matrices"
)


def first_order_only(gradient: Tensor, *inputs: Tensor, message: str = _CLOSED_FORM) -> Tensor:
    """Use this function in the backward pass of an `autograd.Function` that runs under `torch.no_grad`."""
    if not torch.is_grad_enabled():
        return gradient
    result: Tensor = _FirstOrderOnly.apply(message, gradient, *inputs)  # type: ignore[no-untyped-call]
    return result


class _FirstOrderOnly(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, message: str, gradient: Tensor, *inputs: Tensor) -> Tensor:
        ctx.message = message
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> None:
        raise ConfigError(ctx.message)
