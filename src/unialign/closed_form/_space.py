"""Functions shared by all closed forms.

Shapes: `W` dimension of the prepared rows of a modality, `D` dimension of the space.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from unialign.data import EmbeddingStore, combinations, data_license
from unialign.encoders import references_of

# Weights with a smaller standard deviation, relative to their root mean square, are all equal.
_LEAST_DEVIATION = 1e-3


def encoders_and_metadata(store: EmbeddingStore, modalities: Sequence[str], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments `encoders` and `metadata` of a space of the given modalities."""
    data = {"name": store.name, "fingerprint": store.fingerprint, "training_items": len(store.rows("train"))}
    encoders = references_of(store, modalities)
    if encoders:
        data |= {"license": data_license(store), "combinations": combinations(store, modalities, "train")}
    return {"encoders": encoders, "metadata": {"closed_form": dict(facts), "data": data}}


def scaled_weights(weights_WD: Tensor, dim: int) -> Tensor:
    width, directions = weights_WD.shape
    size = weights_WD.square().mean().sqrt()
    deviation = weights_WD.std(correction=0)
    if deviation <= _LEAST_DEVIATION * size:
        deviation = size.clamp(min=torch.finfo(weights_WD.dtype).tiny)
    weights_WD = weights_WD / (deviation * math.sqrt(3 * width))
    return torch.cat([weights_WD, weights_WD.new_zeros(width, dim - directions)], 1)
