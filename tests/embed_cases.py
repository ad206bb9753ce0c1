"""Small item tables and cheap encoders for the tests of embedding."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import embed_prepare
from unialign.encoders import Encoder, wrap
from unialign.items import Items


class Projection(nn.Module):
    """Mix the numbers of an item by a fixed random matrix."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, dim, generator=torch.Generator().manual_seed(dim)))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x.flatten(1).float() / 64 @ self.weight)


def image_encoder(dim: int = 6) -> Encoder:
    return wrap(Projection(192, dim), media="image", dim=dim, prepare=embed_prepare.pixels, name="pixels")


def text_encoder(dim: int = 5, prepare: Any = embed_prepare.letters) -> Encoder:
    return wrap(Projection(16, dim), media="text", dim=dim, prepare=prepare, name="letters")


def write_image(path: Path, seed: int, side: int = 12) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    # Stores have the modification times of the files.
    os.utime(path, (seed, seed))


def small_items(folder: Path, items: int = 23) -> Items:
    """Return a table of images and texts with repeated and absent cells, groups, ids, labels and a split."""
    records = []
    for i in range(items):
        write_image(folder / f"{i % 17}.png", i % 17)
        records.append(
            {
                "id": f"item {i}",
                "image": None if i % 7 == 3 else f"{i % 17}.png",
                "text": None if i % 5 == 4 else f"text number {i % 11}",
                "ids": f"thing {i % 17}",
                "group": f"group {i % 17}",
                "label": ["odd", "even"][i % 2],
                "split": ["train", "val", "test"][i % 17 % 3],
            }
        )
    return Items.from_records(records, kinds={"image": "image", "text": "text"}, root=folder)


def text_items(texts: Sequence[str | None]) -> Items:
    return Items.from_records([{"id": str(i), "text": text} for i, text in enumerate(texts)], kinds={"text": "text"})


def small_encoders() -> dict[str, Encoder]:
    return {"image": image_encoder(), "text": text_encoder()}


def content(folder: Path) -> Mapping[str, str]:
    """Return the sha256 of every file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
