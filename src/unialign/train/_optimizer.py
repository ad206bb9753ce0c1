"""AdamW for spaces and decoders."""

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn


def make_adamw(
    parameters: Mapping[str, nn.Parameter],
    prefix: str = "",
    *,
    lr: float,
    weight_decay: float,
    fused: bool | None = None,
) -> torch.optim.AdamW:
    """Weight decay applies to matrices whose names have the prefix, not to biases or temperatures."""
    matrices = {name: p for name, p in parameters.items() if name.startswith(prefix) and p.ndim > 1}
    others = [p for name, p in parameters.items() if name not in matrices]
    groups = [{"params": [*matrices.values()], "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=lr, fused=fused)


def learning_rate(
    step: int,
    *,
    steps: int,
    warmup: float,
    highest: float,
    lowest: float = 0.0,
    cosine_from: Literal["warmup", "start"] = "warmup",
) -> float:
    """Linear warmup and half-cosine decay. With `cosine_from="start"`, the decay starts at step 0 and is multiplied by
    the warmup.
    """
    if cosine_from == "start":
        rise = min(1.0, (step + 1) / warmup) if warmup > 0 else 1.0
        return lowest + (highest * rise - lowest) * 0.5 * (1 + math.cos(math.pi * step / steps))
    if step < warmup:
        return highest * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return lowest + (highest - lowest) * 0.5 * (1 + math.cos(math.pi * progress))


def optimizer_tensors(optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Names have the form `parameter/key`."""
    return {
        f"{name}/{key}": value
        for name, parameter in parameters.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer_tensors(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]
) -> None:
    fused = bool(optimizer.defaults.get("fused"))
    for name, value in tensors.items():
        parameter_name, _, key = name.rpartition("/")
        parameter = parameters[parameter_name]
        # AdamW keeps step counts on the CPU unless it is fused.
        optimizer.state[parameter][key] = value if key == "step" and not fused else value.to(parameter.device)
