"""Code that the encoders of timm and open_clip share."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from unialign._optional import optional_module
from unialign.encoders._lora import plain_state
from unialign.encoders._model_files import copy_files, file_sha256
from unialign.encoders._processor import ImageSettings
from unialign.errors import ConfigError

# Numbers of the filters in Pillow. Both libraries choose `random` in training only.
_FILTERS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "random": 2}


def import_library(name: str, what: str, extra: str) -> Any:
    hint = " with the torchvision of the installed torch"
    return optional_module(name, f"the encoder {what!r}", extra, hint=hint)


def torchvision_settings(
    *,
    mode: str,
    resized: tuple[int, int],
    size: tuple[int, int],
    interpolation: str,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    what: str,
) -> ImageSettings:
    """Return the settings of an image transform; the mode `shortest` resizes the shorter side to `resized`, `squash`
    both sides.
    """
    if mode not in ("shortest", "squash") or (mode == "shortest" and resized[0] != resized[1]):
        raise ConfigError(
            f"the encoder {what!r} resizes images with mode {mode!r} to {resized}, which is not supported; expected "
            f"'shortest' with equal sides, or 'squash'"
        )
    if interpolation not in _FILTERS:
        raise ConfigError(f"the encoder {what!r} resizes images with {interpolation!r}; expected {', '.join(_FILTERS)}")
    return ImageSettings(
        shortest=resized[0] if mode == "shortest" else None,
        size=resized if mode == "squash" else None,
        resample=_FILTERS[interpolation],
        crop=size,
        scale=1 / 255,
        mean=mean,
        std=std,
        crop_start="even",
    )


def write_weights(
    module: nn.Module,
    source: Path,
    folder: Path,
    *,
    weights: str,
    others: tuple[str, ...],
    prefix: str = "",
) -> dict[str, Mapping[str, str]]:
    """Copy the files of a model, or write its weights if they have changed. Other tensors in the file are kept."""
    files = copy_files(source, folder, others)
    stored = load_file(source / weights)
    current = {prefix + name: tensor.detach().cpu() for name, tensor in plain_state(module).items()}
    changed = {name for name, tensor in stored.items() if name in current and _differs(tensor, current[name])}
    if not changed:
        found = copy_files(source, folder, (weights,))
    else:
        merged = {name: current[name] if name in changed else tensor for name, tensor in stored.items()}
        save_file({name: tensor.contiguous().clone() for name, tensor in merged.items()}, folder / weights)
        found = {weights: file_sha256(folder / weights)}
    return {"weights": found, "files": {**files, **found}}


def _differs(stored: torch.Tensor, current: torch.Tensor) -> bool:
    return not torch.equal(stored.to(current.dtype), current)
