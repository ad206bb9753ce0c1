"""Choose the device and the floating-point type of a model."""

import torch

from unialign.errors import ConfigError


def chosen_device(device: str | torch.device) -> torch.device:
    """Return the device; `auto` is CUDA if available, else the CPU.

    Raises:
        ConfigError: the device is unknown or not available.
    """
    if device == "auto":
        target = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    else:
        try:
            target = torch.device(device)
        except (RuntimeError, TypeError):
            target = torch.device("meta")
        if target.type not in ("cpu", "cuda"):
            raise ConfigError(f"unknown device {device!r}; expected 'auto', 'cpu', 'cuda' or 'cuda:<number>'")
    if target.type == "cuda" and not (torch.cuda.is_available() and (target.index or 0) < torch.cuda.device_count()):
        raise ConfigError(f"device {str(target)!r} is not available; use device='cpu'")
    return target


def torch_dtype(name: str) -> torch.dtype:
    found: torch.dtype = getattr(torch, name)
    return found
