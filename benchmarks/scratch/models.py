"""Encoders of pictures and captions of Tux Paint with random weights, as in a first training loop.

Shapes: `N` items, `B` items of a batch, `D` dimension, `S` side of a picture.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unialign import encoders
from unialign.items import Items
from unialign.media import load_cell
from unialign.named_data import prepare

DIM = 128
_HIDDEN = 128


@dataclass(frozen=True)
class Stamps:
    """Prepared pictures and captions of all items.

    Attributes:
        items: the item table.
        present: masks (N,) of the modalities.
        pixels_N3SS: uint8 pictures.
        buckets: hashed n-grams of each caption for `builtin:bag`.
        words: indices of the words of each caption; 0 is a word that no training caption has.
        vocabulary: number of indices.
    """

    items: Items
    present: Mapping[str, Tensor]
    pixels_N3SS: Tensor
    buckets: list[Any]
    words: list[list[int]]
    vocabulary: int

    def rows(self, *splits: int) -> Tensor:
        return torch.as_tensor(np.flatnonzero(np.isin(self.items.split, splits)))

    @property
    def ids_N(self) -> Tensor:
        return torch.tensor(self.items.ids)


def read_stamps() -> Stamps:
    items = prepare("tuxpaint").select(["image", "text"])
    image, text = (encoders.create(f"builtin:{name}", device="cpu") for name in ("conv", "bag"))
    pixels, buckets, captions = [], [], []
    for row in range(len(items)):
        picture, caption = (_load(items, row, name) for name in ("image", "text"))
        pixels.append(np.zeros((3, 64, 64), np.uint8) if picture is None else image.prepare(picture)["pixels"])
        buckets.append(None if caption is None else text.prepare(caption))
        captions.append(re.findall(r"[a-z]+", (caption or "").lower()))
    known = sorted({word for row in np.flatnonzero(items.split == 0) for word in captions[row]})
    index = {word: place for place, word in enumerate(known, start=1)}
    return Stamps(
        items,
        {name: torch.as_tensor(items.present(name)) for name in items.modalities},
        torch.from_numpy(np.stack(pixels)),
        buckets,
        [[index.get(word, 0) for word in own] or [0] for own in captions],
        len(known) + 1,
    )


def _load(items: Items, row: int, name: str) -> Any:
    cell = items.cell(row, name)
    return None if cell is None else load_cell(cell, items.kinds[name], roots=items.roots)


class PlainModel(nn.Module):
    """A convolutional network without normalization layers, and an EmbeddingBag of words, with default weights."""

    def __init__(self, stamps: Stamps, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.stamps = stamps
        layers: list[nn.Module] = [nn.AvgPool2d(2)]
        for source, target in ((3, 32), (32, 64), (64, _HIDDEN)):
            layers += [nn.Conv2d(source, target, 3, 2, 1), nn.ReLU()]
        self.image = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.bag = nn.EmbeddingBag(stamps.vocabulary, _HIDDEN, mode="mean")
        self.heads = nn.ModuleDict({name: nn.Linear(_HIDDEN, DIM) for name in ("image", "text")})

    def features(self, name: str, rows: Tensor) -> Tensor:
        if name == "image":
            return self.image(self.stamps.pixels_N3SS[rows].float() / 255)
        words = [self.stamps.words[row] for row in rows.tolist()]
        starts = np.cumsum([0, *map(len, words)])[:-1]
        return self.bag(torch.tensor([word for own in words for word in own]), torch.from_numpy(starts))

    def forward(self, rows_B: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return outputs (B, D), 0 for absent rows, and masks (B,)."""
        outputs, masks = {}, {}
        for name, head in self.heads.items():
            masks[name] = self.stamps.present[name][rows_B]
            y_PD = head(self.features(name, rows_B[masks[name]]))
            places = masks[name].nonzero()[:, 0]
            outputs[name] = y_PD.new_zeros(len(rows_B), DIM).index_put((places,), y_PD)
        return outputs, masks


class BuiltinModel(PlainModel):
    """The encoders `builtin:conv` and `builtin:bag`."""

    def __init__(self, stamps: Stamps, seed: int) -> None:
        nn.Module.__init__(self)
        torch.manual_seed(seed)
        self.stamps = stamps
        made = [encoders.create(f"builtin:{name}?seed={seed}", device="cpu") for name in ("conv", "bag")]
        self.collate = made[1].collate
        self.modules_of = nn.ModuleDict({"image": made[0].module, "text": made[1].module})
        self.modules_of.train().requires_grad_(True)
        self.heads = nn.ModuleDict({"image": nn.Linear(made[0].dim, DIM), "text": nn.Linear(made[1].dim, DIM)})

    def features(self, name: str, rows: Tensor) -> Tensor:
        if name == "image":
            return self.modules_of[name](self.stamps.pixels_N3SS[rows])
        return self.modules_of[name](**self.collate([self.stamps.buckets[row] for row in rows.tolist()]))


MODELS: dict[str, Callable[[Stamps, int], PlainModel]] = {"plain": PlainModel, "builtin": BuiltinModel}


@torch.no_grad()
def standardize_outputs(model: PlainModel, rows_N: Tensor) -> None:
    """Change the heads so that each output column has mean 0 and variance 1 over the given items."""
    outputs, masks = model(rows_N)
    for name, head in model.heads.items():
        y_PD = outputs[name][masks[name]]
        deviation_D = y_PD.std(0).clamp_min(1e-6)
        head.weight.div_(deviation_D[:, None])
        head.bias.sub_(y_PD.mean(0)).div_(deviation_D)
