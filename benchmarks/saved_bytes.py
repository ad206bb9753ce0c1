"""Count the bytes that autograd keeps for the backward pass."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["saved_bytes", "saved_tensors"]


def saved_tensors(compute: Callable[[], Tensor]) -> list[Tensor]:
    """One tensor per storage, inputs included."""
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        # Keep tensors alive in `kept`, so that no address is reused.
        known = kept.get(tensor.untyped_storage().data_ptr())
        if known is None or known.numel() < tensor.numel():
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = compute()
    assert result.requires_grad, "the result has no gradient, so nothing is kept for the backward pass"
    return list(kept.values())


def saved_bytes(compute: Callable[[], Tensor]) -> int:
    return sum(tensor.untyped_storage().nbytes() for tensor in saved_tensors(compute))
