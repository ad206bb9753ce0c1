"""Define a store of tiny images and their embeddings, and a decoder that trains on them in about a second."""

import io
import zipfile
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unialign.data import EmbeddingStore
from unialign.generation import DecoderConfig, png_bytes
from unialign.space import Space
from unialign.train import TrainConfig, fit

SIZE, DIM = 8, 10
ITEMS = 48


def tiny_images() -> Tensor:
    rng = np.random.default_rng(0)
    images = np.ones((ITEMS, 3, SIZE, SIZE), dtype=np.float32)
    for i in range(ITEMS):
        y, x, side = (*rng.integers(0, 4, 2).tolist(), int(rng.integers(2, 5)))
        images[i, :, y : y + side, x : x + side] = rng.uniform(0, 1, (3, 1, 1))
    return torch.from_numpy(images)


@cache
def tiny_image_store(*, name: str = "tiny") -> EmbeddingStore:
    rng = np.random.default_rng(1)
    flat = tiny_images().flatten(1).numpy()
    image = np.tanh(flat @ rng.normal(size=(flat.shape[1], DIM)) / 8) + 2
    text = image @ rng.normal(size=(DIM, 6)) + 0.1 * rng.normal(size=(ITEMS, 6))
    split = ["train"] * 36 + ["val"] * 4 + ["test"] * 8
    return EmbeddingStore.from_arrays(
        {"image": image, "text": text},
        split=split,
        name=name,
        names=[f"square {i}" for i in range(ITEMS)],
        groups=np.arange(ITEMS) // 2,
        assets={"thumbnails.zip": _thumbnails()},
        provenance={"columns": {"image": {"encoder": "a random map", "weights": {"sha256": "0" * 64}}}},
    )


def _thumbnails() -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as out:
        for row, image in enumerate(tiny_images()):
            out.writestr(f"image/{row}.png", png_bytes(image))
    return archive.getvalue()


def tiny_decoder_config(**changes: Any) -> DecoderConfig:
    settings: dict[str, Any] = {
        "size": SIZE,
        "directions": 8,
        "latents": 24,
        "width": 32,
        "depth": 2,
        "steps": 12,
        "batch_size": 8,
        "sampler_steps": 3,
        "logging_steps": 1,
        "save_steps": 5,
    }
    return DecoderConfig(**settings | changes)


def tiny_space(store: EmbeddingStore | None = None, **changes: Any) -> Space:
    settings: dict[str, Any] = {
        "objective": "unialign",
        "objective_options": {"anchor": "image", "preset": "frozen_anchor", "uniformity_weight": 0.1},
        "modalities": ("image", "text"),
        "frozen": {"image": "whiten"},
        "dim": 8,
        "head": "linear",
        "epochs": 60,
        "batch_size": 36,
        "lr": 0.02,
    }
    return fit(store or tiny_image_store(), TrainConfig(**settings | changes), progress="none").space
