"""The arguments of a factory as one value, and the device and floating-point type among them.

Importing this module does not import torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unialign.encoders._names import EncoderName
from unialign.errors import ConfigError
from unialign.media import Kind

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Request:
    """See `EncoderFactory`."""

    spec: EncoderName
    media: Kind | None
    device: "torch.device"
    dtype: str
    offline: bool | None
    folder: Path | None
    weights: Mapping[str, str] | None


def chosen_device(device: "str | torch.device") -> "torch.device":
    """Return the device; `auto` is CUDA if available, else the CPU.

    Raises:
        ConfigError: the device is unknown or not available.
    """
    import torch

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


def torch_dtype(name: str) -> "torch.dtype":
    import torch

    found: torch.dtype = getattr(torch, name)
    return found
