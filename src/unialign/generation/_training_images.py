"""What a decoder trains on: the pictures of a store's training rows, and their embeddings.

Shapes: `N` training pictures, `S` pixels a side, `W` width of the embeddings.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unialign.data import EmbeddingStore, encoder_fingerprint
from unialign.errors import DataError, NonFiniteError, ShapeError
from unialign.generation._decoder import EmbeddingSpec
from unialign.generation._decoder_config import DecoderConfig
from unialign.generation._images import read_thumbnails

__all__ = ["TrainingPictures", "load_training_pictures"]

# How many held-out pictures the grids of a run show.
SHOWN = 32


@dataclass(frozen=True)
class TrainingPictures:
    """Attributes:
    embeddings: (N, W) float32 of the training rows.
    pictures: (N, 3, S, S) uint8.
    train, shown: rows of the store: those, and the few that grids show (held out, if there are such).
    shown_embeddings, shown_pictures: of the latter.
    """

    spec: EmbeddingSpec
    embeddings: Tensor
    pictures: Tensor
    train: np.ndarray
    shown_embeddings: Tensor
    shown_pictures: Tensor


def load_training_pictures(
    store: EmbeddingStore, config: DecoderConfig, image: str, pictures: Tensor | None
) -> TrainingPictures:
    if not isinstance(store, EmbeddingStore):
        raise DataError(f"store must be an EmbeddingStore, got {store!r}; open one with `unialign.data.load`")
    width, present = store.width(image), store.present(image)
    train = store.rows("train")
    train = train[present[train]]
    if len(train) < 2:
        raise DataError(f"{image!r} of {store.name!r} has {len(train)} training rows; a decoder needs at least 2")
    held = np.concatenate([store.rows(split)[present[store.rows(split)]] for split in ("val", "test")])
    source = held if len(held) else train
    shown = source[np.linspace(0, len(source) - 1, min(len(source), SHOWN)).round().astype(int)]
    if pictures is None:
        both = read_thumbnails(store, image, np.concatenate([train, shown]), config.size)
    else:
        _check_pictures(pictures, store.items, config.size)
        both = pictures[torch.from_numpy(np.concatenate([train, shown]))]
        both = both.float() / 255 if both.dtype == torch.uint8 else both
    if not bool(torch.isfinite(both).all()) or float(both.min()) < 0 or float(both.max()) > 1:
        raise NonFiniteError("pictures must be finite numbers in [0, 1], or uint8; scale them")
    both = (both * 255).round().to(torch.uint8)
    x_NW, y_NW = (torch.from_numpy(store.array(image)[rows].astype(np.float32)) for rows in (train, shown))
    if not bool(torch.isfinite(x_NW).all()):
        row = int(train[int((~torch.isfinite(x_NW).all(1)).nonzero()[0])])
        raise NonFiniteError(f"{image!r}, row {row} of the store, is not finite; mark it as absent")
    if not bool(torch.isfinite(y_NW).all()):
        row = int(shown[int((~torch.isfinite(y_NW).all(1)).nonzero()[0])])
        raise NonFiniteError(f"{image!r}, row {row} of the store, is not finite in float32; mark it as absent")
    provenance = store.provenance.get("columns", {}).get(image)
    encoder = provenance.get("encoder") if isinstance(provenance, dict) else None
    spec = EmbeddingSpec(
        encoder=str(encoder or f"the column {image!r} of {store.name!r}"),
        width=width,
        identity=encoder_fingerprint(store, image),
        norm=float(x_NW.norm(dim=1).mean()),
        lengths="ignored",
    )
    return TrainingPictures(spec, x_NW, both[: len(train)], train, y_NW, both[len(train) :])


def _check_pictures(pictures: Any, items: int, size: int) -> None:
    if not isinstance(pictures, Tensor) or pictures.shape != (items, 3, size, size):
        shape = tuple(pictures.shape) if isinstance(pictures, Tensor) else type(pictures).__name__
        raise ShapeError(f"pictures are {shape}; expected a tensor ({items}, 3, {size}, {size}), one for every item")
    if pictures.dtype != torch.uint8 and not pictures.is_floating_point():
        raise ShapeError(f"pictures have dtype {pictures.dtype}; expected uint8 in [0, 255], or float in [0, 1]")
