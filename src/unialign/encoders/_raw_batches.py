"""Batches of media that a library prepares itself.

Shapes: `n` items.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unialign.encoders._built import Batch
from unialign.encoders._encoder import Prepared
from unialign.media import Audio

_VALUES, _SHAPES, _RATES = "values", "shapes", "rates"


def join_raw(prepared: Sequence[Prepared]) -> Batch:
    """Join prepared items into a batch; the shapes of the values may differ."""
    return {
        _VALUES: torch.from_numpy(np.concatenate([item["value"].ravel() for item in prepared])),
        _SHAPES: torch.tensor([item["value"].shape for item in prepared]),
        _RATES: torch.tensor([int(item["rate"]) for item in prepared]),
    }


def texts_of(batch: Batch) -> list[str]:
    return [value.tobytes().decode() for value in _split(batch)]


def images_of(batch: Batch) -> list[NDArray[np.uint8]]:
    return [np.asarray(value, np.uint8) for value in _split(batch)]


def sounds_of(batch: Batch) -> list[Audio]:
    return [Audio(value, rate) for value, rate in zip(_split(batch), batch[_RATES].tolist(), strict=True)]


def _split(batch: Batch) -> list[Any]:
    flat, start, found = batch[_VALUES].cpu().numpy(), 0, []
    for shape in batch[_SHAPES].tolist():
        end = start + int(np.prod(shape))
        found.append(flat[start:end].reshape(shape))
        start = end
    return found
