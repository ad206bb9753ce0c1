"""Compute the gradient of UniAlign with respect to a temperature passed to the call.

The kernel of two unit rows is exp(a (cos - 1)) with a rate a(tau). A uniformity or log-partition U is a function of the
products a cos, minus a, so its derivative with respect to a follows from its gradient with respect to the rows: dU/da =
sum_i <z_i, dU/dz_i> / (2 a) - 1. The gradient with respect to the rows is therefore also computed in the forward pass.
With several processes, one number per term is summed over processes.

Shapes: `B` items, `D` dimension.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from unialign.distributed import Shard
from unialign.errors import ConfigError
from unialign.ops import Kernel


class RateGradient:
    """Add the gradient with respect to a temperature to values computed at its current value."""

    def __init__(self, kernel: Kernel, temperature: Tensor, shard: Shard | None) -> None:
        if kernel == "geodesic":
            raise ConfigError(
                "kernel='geodesic' has no gradient with respect to its temperature; pass a number or a detached tensor,"
                " or use kernel='clip'"
            )
        self.shard = shard
        self.rate = 1 / temperature if kernel == "clip" else 1 / (temperature * temperature)

    def add(self, value: Tensor, compute: Callable[..., Tensor], rows: Sequence[Tensor]) -> Tensor:
        with torch.enable_grad():
            leaves = [row_BD.detach().requires_grad_() for row_BD in rows]
            gradients = torch.autograd.grad(compute(*leaves), leaves)
        local = slice(None) if self.shard is None else slice(self.shard.start, self.shard.stop)
        products = [
            (x_BD[local] * gradient_BD[local]).sum(dtype=torch.float64)
            for x_BD, gradient_BD in zip(leaves, gradients, strict=True)
        ]
        total = torch.stack(products).sum().detach()
        if self.shard is not None:
            total = self.shard.sum(total)
        slope = total / (2 * self.rate.detach().double()) - 1
        return value + (slope * (self.rate - self.rate.detach())).to(value)
