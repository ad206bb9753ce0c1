"""Training that continues from another space: does it fit, which weights are these, and how they are taken over."""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch

from unialign.config import TrainConfig
from unialign.errors import ConfigError
from unialign.space import Space

__all__ = ["check_frozen_start", "check_start", "copy_weights", "weights_digest"]


def check_start(start: object, widths: Mapping[str, int], config: TrainConfig) -> None:
    """`ConfigError` unless it is None or a space of the shape that the configuration asks for.

    The order of the modalities is free, and so is dropout, which has no weights.
    """
    if start is None:
        return
    if not isinstance(start, Space):
        raise ConfigError(f"start must be a Space to continue from, got {start!r}; load one with Space.from_pretrained")
    if set(start.widths) != set(widths):
        raise ConfigError(
            f"start has the modalities {', '.join(start.widths)}, this run trains {', '.join(widths)}; "
            f"set modalities to those of the start"
        )
    for name, width in widths.items():
        if start.widths[name] != width:
            raise ConfigError(f"start expects {name!r} to be {start.widths[name]} wide, the store's is {width} wide")
    names = ("dim", "head", "input_norm", "frozen", *(["hidden"] if config.head == "mlp" else []))
    for name in names:
        if getattr(start, name) != getattr(config, name):
            raise ConfigError(
                f"start was made with {name}={getattr(start, name)!r}, this run has {name}="
                f"{getattr(config, name)!r}; use the same setting"
            )


def check_frozen_start(start: Space, columns: Mapping[str, str]) -> None:
    """`ConfigError` if the frame of a frozen modality, which is taken over, is of another encoder than the column."""
    data: Any = start.metadata.get("data")
    known = data.get("columns") if isinstance(data, Mapping) else None
    for name, identity in columns.items():
        before = known.get(name) if isinstance(known, Mapping) else None
        if before is not None and before != identity:
            raise ConfigError(
                f"start froze {name!r} as another encoder gives it (identity {str(before)[:12]}, the store's is "
                f"{identity[:12]}); use the data that the start was trained on, or start from random weights"
            )


def weights_digest(space: Space) -> str:
    """sha256 over the weights and input statistics of a space, the same for every order of its modalities."""
    whole = hashlib.sha256()
    for name in sorted(space.modalities):
        place = space.modalities.index(name)
        for module in (space.features[place], space.heads[place]):
            for key, tensor in module.state_dict().items():
                whole.update(f"{name}/{key}/{tuple(tensor.shape)}/".encode())
                whole.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return whole.hexdigest()


@torch.no_grad()
def copy_weights(space: Space, start: Space) -> Space:
    """Copy weights and input statistics of `start` into a space of the same shape; `start` stays as it is."""
    for place, name in enumerate(space.modalities):
        there = start.modalities.index(name)
        space.features[place].load_state_dict(start.features[there].state_dict())
        space.heads[place].load_state_dict(start.heads[there].state_dict())
    return space
