"""Tensors of a repair, as a module that is saved and loaded.

Shapes: `D` dimension, `R` reference rows.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unialign._checks import check_choice, check_integer
from unialign.correction._layers import AFFINE, METHODS
from unialign.errors import ConfigError

_MOST_REFERENCES = 1 << 20


class Layer(nn.Module):
    """Affine map of a modality, its mean, and centered reference rows for the scores of an index."""

    weight: Tensor
    bias: Tensor
    mean: Tensor
    reference: Tensor

    def __init__(self, dim: int, references: int) -> None:
        super().__init__()
        # Not torch.eye: on the device meta, where modules are created before loading, it imports sympy for a second.
        self.register_buffer("weight", torch.zeros(dim, dim, dtype=torch.float64).fill_diagonal_(1.0))
        self.register_buffer("bias", torch.zeros(dim, dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(dim, dtype=torch.float64))
        self.register_buffer("reference", torch.zeros(references, dim, dtype=torch.float32))


class RepairLayers(nn.Module):
    """`references` maps each modality to its number of reference rows. Raise ConfigError for a modified file."""

    def __init__(self, references: Mapping[str, int], *, dim: int, choice: str, index_choice: str) -> None:
        super().__init__()
        if not isinstance(references, Mapping) or not references:
            raise ConfigError(f"references must map modalities to numbers of rows, got {references!r}")
        check_integer("dim", dim, low=1, high=1 << 20)
        for name, rows in references.items():
            check_integer(f"references of {name!r}", rows, low=1, high=_MOST_REFERENCES)
        check_choice("choice", choice, AFFINE)
        check_choice("index_choice", index_choice, METHODS)
        self.references = dict(references)
        self.dim, self.choice, self.index_choice = dim, choice, index_choice
        self.layers = nn.ModuleList(Layer(dim, rows) for rows in references.values())

    def get_config(self) -> dict[str, Any]:
        return {
            "references": dict(self.references),
            "dim": self.dim,
            "choice": self.choice,
            "index_choice": self.index_choice,
        }

    def __getitem__(self, name: str) -> Layer:
        layer = self.layers[list(self.references).index(name)]
        assert isinstance(layer, Layer)
        return layer
