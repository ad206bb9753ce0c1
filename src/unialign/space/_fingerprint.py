"""Identify a space by its weights, so that its embeddings are not compared with those of another space."""

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from unialign.space._space import Space


def space_fingerprint(space: "Space", *, encoders: Collection[str] | None = None) -> str:
    """Return 64 hexadecimal digits, a sha256 of the settings, the weights and the fingerprints of the encoders.

    Args:
        space: the space.
        encoders: modalities whose encoders are included. None: all that have an encoder.
    """
    names = sorted(space.encoders if encoders is None else encoders)
    known = {name: str(space.encoders[name]["fingerprint"]) for name in names}
    return fingerprint_of(json.dumps([space.get_config(), known], sort_keys=True, default=str), space.state_dict())


def fingerprint_of(description: str, tensors: Mapping[str, Tensor]) -> str:
    """Return a sha256 of a description and of named tensors."""
    hasher = hashlib.sha256(description.encode())
    for key, tensor in sorted(tensors.items()):
        hasher.update(key.encode())
        hasher.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return hasher.hexdigest()
