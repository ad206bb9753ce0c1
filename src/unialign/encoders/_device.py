"""Choose the device and floating-point type of an encoder."""

import torch

from unialign.errors import ConfigError


def chosen_device(device: str | torch.device) -> torch.device:
    """`auto` is CUDA if available, else the CPU."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.device(device)
    except (RuntimeError, TypeError):
        raise ConfigError(f"unknown device {device!r}; expected 'auto', 'cpu', 'cuda' or 'cuda:<number>'") from None


def torch_dtype(name: str) -> torch.dtype:
    found: torch.dtype = getattr(torch, name)
    return found
