"""What a decoder trains on: the images of a store's training rows, and their embeddings.

Shapes: `N` training images, `S` pixels a side, `W` width of the embeddings.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unialign.config import DecoderConfig
from unialign.data import EmbeddingStore, encoder_fingerprint
from unialign.errors import DataError, NonFiniteError, ShapeError
from unialign.generation._decoder import EmbeddingSpec
from unialign.generation._thumbnails import read_thumbnails

__all__ = ["TrainingImages", "load_training_images"]

# How many held-out images the grids of a run show.
SHOWN = 32


@dataclass(frozen=True)
class TrainingImages:
    """Attributes:
    embeddings: (N, W) float32 of the training rows.
    images: (N, 3, S, S) uint8.
    train, shown: rows of the store: those, and the few that grids show (held out, if there are such).
    shown_embeddings, shown_images: of the latter.
    """

    spec: EmbeddingSpec
    embeddings: Tensor
    images: Tensor
    train: np.ndarray
    shown_embeddings: Tensor
    shown_images: Tensor


def load_training_images(
    store: EmbeddingStore, config: DecoderConfig, image: str, images: Tensor | None
) -> TrainingImages:
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
    if images is None:
        both = read_thumbnails(store, image, np.concatenate([train, shown]), config.size)
    else:
        _check_images(images, store.items, config.size)
        both = images[torch.from_numpy(np.concatenate([train, shown]))]
        both = both.float() / 255 if both.dtype == torch.uint8 else both
    if not bool(torch.isfinite(both).all()) or float(both.min()) < 0 or float(both.max()) > 1:
        raise NonFiniteError("images must be finite numbers in [0, 1], or uint8; scale them")
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
        scale_invariant=True,
    )
    return TrainingImages(spec, x_NW, both[: len(train)], train, y_NW, both[len(train) :])


def _check_images(images: Any, items: int, size: int) -> None:
    if not isinstance(images, Tensor) or images.shape != (items, 3, size, size):
        shape = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise ShapeError(f"images are {shape}; expected a tensor ({items}, 3, {size}, {size}), one for every item")
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise ShapeError(f"images have dtype {images.dtype}; expected uint8 in [0, 255], or float in [0, 1]")
