"""Affine map of unit embeddings, such as a repair of the modality gap.

Shapes: `B` rows, `D` dimension of the space.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unialign._checks import suggestion
from unialign.errors import ConfigError, NonFiniteError, ShapeError
from unialign.space._normalizer import divide_by_norm


class OutputAffine(nn.Module):
    """The map z = (h / |h|) weight + bias of the output h of a head."""

    weight: Tensor
    bias: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.eye(dim))
        self.register_buffer("bias", torch.zeros(dim))

    def forward(self, h_BD: Tensor) -> Tensor:
        return divide_by_norm(h_BD) @ self.weight + self.bias


def check_output_affine(names: Any, dims: Mapping[str, int]) -> tuple[str, ...]:
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise ConfigError(f"output_affine must be a list of modalities, got {names!r}")
    for name in names:
        if name not in dims:
            raise ConfigError(
                f"unknown modality {name!r} in output_affine; this space has {', '.join(dims)}{suggestion(name, dims)}"
            )
    return tuple(name for name in dims if name in names)


@torch.no_grad()
def set_output_affine(module: OutputAffine, name: str, weight: Any, bias: Any) -> None:
    for given, own, key in ((weight, module.weight, "weight"), (bias, module.bias, "bias")):
        tensor = torch.as_tensor(given)
        if tuple(tensor.shape) != tuple(own.shape):
            raise ShapeError(
                f"{key} of {name!r} has shape {tuple(tensor.shape)}; expected {tuple(own.shape)} for this space"
            )
        if not bool(torch.isfinite(tensor).all()):
            raise NonFiniteError(f"{key} of {name!r} contains NaN or infinity")
        own.copy_(tensor)
