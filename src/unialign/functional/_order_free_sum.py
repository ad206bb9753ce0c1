"""Sum values over modalities or pairs with a result that is bitwise independent of their order."""

import torch
from torch import Tensor


def order_free_sum(x: Tensor) -> Tensor:
    """Sum over the first dimension, bitwise equal for every order of the entries."""
    if len(x) <= 2:  # a + b = b + a
        return x.sum(0)
    if x.ndim > 1 and x.dtype == torch.float32 and x.device.type != "mps":
        # Sums of a few float32 numbers are exact in float64.
        return x.sum(0, dtype=torch.float64).to(x.dtype)
    return x.sort(dim=0).values.sum(0)
