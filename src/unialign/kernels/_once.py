"""A closed-form gradient that has no derivative of its own says so when one is asked for, in words."""

from typing import Any

import torch
from torch import Tensor

from unialign.errors import ConfigError

__all__ = ["first_order_only"]


def first_order_only(gradient: Tensor, *inputs: Tensor) -> Tensor:
    """The gradient, such that differentiating it by any of the inputs raises ConfigError.

    For the backward pass of an `autograd.Function`, whose arithmetic must be under `torch.no_grad`. Without
    `create_graph` it is the gradient itself.
    """
    if not torch.is_grad_enabled():
        return gradient
    result: Tensor = _FirstOrderOnly.apply(gradient, *inputs)  # type: ignore[no-untyped-call]
    return result


class _FirstOrderOnly(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gradient: Tensor, *inputs: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> None:
        raise ConfigError(
            "this loss has a closed-form gradient and no second derivative; for one, call it inside "
            "`with unialign.kernels.pinned('reference'):`, which keeps whole B x B matrices"
        )
