"""Load the images of a store's training rows and their embeddings.

Shapes: `N` training images, `S` pixels a side, `W` dimension of the embeddings.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign.config import DecoderConfig
from unialign.data import EmbeddingStore, encoder_fingerprint
from unialign.errors import DataError, NonFiniteError, ShapeError
from unialign.generation._decoder import EmbeddingSpec
from unialign.generation._thumbnails import read_thumbnails

# Largest number of held-out images in the sample grids of a run.
SHOWN = 32


@dataclass(frozen=True)
class TrainingImages:
    """Training data: (N, W) float32 embeddings and (N, 3, S, S) uint8 images.

    The sample grids show held-out rows, or training rows if there are none.
    """

    spec: EmbeddingSpec
    embeddings: Tensor
    images: Tensor
    shown_embeddings: Tensor
    shown_images: Tensor


def load_training_images(
    store: EmbeddingStore, config: DecoderConfig, image: str, images: Tensor | None
) -> TrainingImages:
    """Validate and load the arguments of `train_decoder`, which documents the errors."""
    if not isinstance(store, EmbeddingStore):
        raise DataError(
            f"store must be an EmbeddingStore, got {type(store).__name__}; open files or arrays as one with "
            "`unialign.data.load_dataset`"
        )
    dim, present = store.dim(image), store.present(image)
    train = store.rows("train")
    train = train[present[train]]
    if len(train) < 2:
        raise DataError(f"{image!r} of {store.name!r} has {len(train)} training rows; a decoder needs at least 2")
    held_out = np.concatenate([store.rows(split)[present[store.rows(split)]] for split in ("val", "test")])
    source = held_out if len(held_out) else train
    shown = source[np.linspace(0, len(source) - 1, min(len(source), SHOWN)).round().astype(int)]
    rows = np.concatenate([train, shown])
    if images is None:
        pixels = read_thumbnails(store, image, rows, config.size)
    else:
        pixels = _select_images(images, rows, (store.items, 3, config.size, config.size))
    if not bool(torch.isfinite(pixels).all()) or float(pixels.min()) < 0 or float(pixels.max()) > 1:
        raise NonFiniteError("images must be finite numbers in [0, 1], or uint8; scale them")
    pixels = (pixels * 255).round().to(torch.uint8)
    embeddings = torch.from_numpy(store.array(image)[rows].astype(np.float32))
    if len(bad := (~torch.isfinite(embeddings).all(1)).nonzero()):
        raise NonFiniteError(
            f"{image!r}, row {int(rows[int(bad[0])])} of the store, is not finite in float32; mark it as absent"
        )
    provenance = store.provenance.get("columns", {}).get(image)
    encoder = provenance.get("encoder") if isinstance(provenance, dict) else None
    count = len(train)
    spec = EmbeddingSpec(
        encoder=str(encoder or f"the column {image!r} of {store.name!r}"),
        dim=dim,
        fingerprint=encoder_fingerprint(store, image),
        norm=float(embeddings[:count].norm(dim=1).mean()),
        scale_invariant=True,
    )
    return TrainingImages(spec, embeddings[:count], pixels[:count], embeddings[count:], pixels[count:])


def _select_images(images: Any, rows: NDArray[np.int64], shape: tuple[int, ...]) -> Tensor:
    """Return rows of the argument `images` as floating numbers."""
    if not isinstance(images, Tensor) or images.shape != shape:
        found = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise ShapeError(f"images are {found}; expected a tensor {shape}, one for every item")
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise ShapeError(f"images have dtype {images.dtype}; expected uint8 in [0, 255], or float in [0, 1]")
    chosen = images[torch.from_numpy(rows)]
    return chosen.float() / 255 if chosen.dtype == torch.uint8 else chosen
