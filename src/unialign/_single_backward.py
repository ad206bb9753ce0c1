"""A gradient that has no derivative of its own says so when one is asked for, in words."""

from typing import Any

import torch
from torch import Tensor

from unialign.errors import ConfigError

__all__ = ["first_order_only"]


def first_order_only(gradient: Tensor, *inputs: Tensor, refusal: str) -> Tensor:
    """The gradient, such that differentiating it by any of the inputs raises ConfigError with the words of `refusal`.

    For the backward pass of an `autograd.Function`, whose arithmetic must be under `torch.no_grad`. Without
    `create_graph` it is the gradient itself.
    """
    if not torch.is_grad_enabled():
        return gradient
    result: Tensor = _FirstOrderOnly.apply(refusal, gradient, *inputs)  # type: ignore[no-untyped-call]
    return result


class _FirstOrderOnly(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, refusal: str, gradient: Tensor, *inputs: Tensor) -> Tensor:
        ctx.refusal = refusal
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> None:
        raise ConfigError(ctx.refusal)
