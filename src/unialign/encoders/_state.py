"""Compute the sha256 of the tensors of a module."""

import hashlib

import torch
from torch import nn


def state_digest(module: nn.Module) -> str:
    """Return the sha256 of all parameters and buffers by name, independent of their order and device."""
    hasher = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if not isinstance(tensor, torch.Tensor):
            continue
        plain = tensor.detach().cpu().contiguous()
        hasher.update(f"{name} {plain.dtype} {tuple(plain.shape)}\n".encode())
        hasher.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b"")
    return hasher.hexdigest()
