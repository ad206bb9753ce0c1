"""What a check is, and the error that it returns."""

from collections.abc import Callable

import torch
from torch import Tensor

Check = Callable[[torch.device], float]


class Unavailable(Exception): ...


def relative(found: Tensor, expected: Tensor) -> float:
    """The norm of the expected tensor is at least 1e-6."""
    found, expected = found.detach().cpu().double(), expected.detach().cpu().double()
    if not bool(torch.isfinite(found).all()):
        return float("inf")
    return float((found - expected).norm() / expected.norm().clamp(min=1e-6))
