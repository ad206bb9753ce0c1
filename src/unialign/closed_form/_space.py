"""Functions shared by all closed forms.

Shapes: `W` dimension of the prepared rows of a modality, `D` dimension of the space.
"""

import math
from typing import Any

import torch
from torch import Tensor

from unialign.data import EmbeddingStore

# Weights with a smaller standard deviation, relative to their root mean square, are all equal.
_LEAST_DEVIATION = 1e-3


def described_data(store: EmbeddingStore) -> dict[str, Any]:
    return {"name": store.name, "fingerprint": store.fingerprint, "training_items": len(store.rows("train"))}


def scaled_weights(weights_WD: Tensor, dim: int) -> Tensor:
    width, directions = weights_WD.shape
    size = weights_WD.square().mean().sqrt()
    deviation = weights_WD.std(correction=0)
    if deviation <= _LEAST_DEVIATION * size:
        deviation = size.clamp(min=torch.finfo(weights_WD.dtype).tiny)
    weights_WD = weights_WD / (deviation * math.sqrt(3 * width))
    return torch.cat([weights_WD, weights_WD.new_zeros(width, dim - directions)], 1)
