"""Functions shared by all closed forms.

Shapes: `W` dimension of the prepared rows of a modality, `D` dimension of the space.
"""

import math
from typing import Any

import torch
from torch import Tensor

from unialign.data import EmbeddingStore


def described_data(store: EmbeddingStore) -> dict[str, Any]:
    """Return the entry `data` of the metadata of a space."""
    return {"name": store.name, "fingerprint": store.fingerprint, "training_items": len(store.rows("train"))}


def scaled_weights(weights_WD: Tensor, dim: int) -> Tensor:
    """Scale weights to the standard deviation of random initial weights, 1 / sqrt(3 W), and pad them to D columns."""
    width, directions = weights_WD.shape
    deviation = weights_WD.std(correction=0).clamp(min=torch.finfo(weights_WD.dtype).tiny)
    weights_WD = weights_WD / (deviation * math.sqrt(3 * width))
    return torch.cat([weights_WD, weights_WD.new_zeros(width, dim - directions)], 1)
