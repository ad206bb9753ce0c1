"""Tiny generated media of items with absent, repeated and broken cells, and runs that train their encoders."""

import wave
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import embed_prepare
from unialign.config import EmbedConfig
from unialign.encoders import Encoder, wrap
from unialign.items import Items
from unialign.train import FitResult, TrainConfig, fit

BROKEN = 5
ENCODERS = {"image": "builtin:conv?size=16", "text": "builtin:bag?dim=16", "sound": "builtin:logmel-conv"}


def media_items(folder: Path, items: int = 26) -> Items:
    """Return images, texts of which every fourth is absent, and sounds; image `BROKEN` is a damaged file."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    records = []
    for i in range(items):
        picture = np.zeros((16, 20, 3), np.uint8) + rng.integers(0, 60, (16, 20, 3), np.uint8)
        picture[:, :, i % 3] += np.uint8(20 * (i % 9))
        Image.fromarray(picture).save(folder / f"{i}.png")
        seconds = np.arange(3200) / 16000
        samples = np.sin(2 * np.pi * (200 + 90 * (i % 9)) * seconds) + 0.05 * rng.normal(size=3200)
        with wave.open(str(folder / f"{i}.wav"), "wb") as file:
            file.setparams((1, 2, 16000, 0, "NONE", ""))
            file.writeframes((8000 * samples).astype("<i2").tobytes())
        text = None if i % 4 == 3 else f"{['red', 'green', 'blue'][i % 3]} number {i % 9}" + "long" * (i % 5)
        split = ("val", "train", "train", "test", "train", "train")[i % 6]
        records.append({"id": f"item {i}", "image": f"{i}.png", "text": text, "sound": f"{i}.wav", "split": split})
    content = (folder / f"{BROKEN}.png").read_bytes()
    (folder / f"{BROKEN}.png").write_bytes(content[: len(content) // 2])
    kinds: Any = {"image": "image", "text": "text", "sound": "audio"}
    return Items.from_records(records, kinds=kinds, root=folder, name="tiny media")


def media_config(**changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {
        "objective": "infonce",
        "dim": 8,
        "hidden": 16,
        "epochs": 3,
        "batch_size": 8,
        "lr": 0.01,
        "warmup_ratio": 0.2,
        "logging_steps": 1,
        "monitor_steps": 100,
        "encoders": ENCODERS,
        "tune": {"image": "all", "text": "all"},
    }
    return TrainConfig(**settings | changes)


def train(items: Items, config: TrainConfig, *, workers: int = 0, **options: Any) -> FitResult:
    embedding = EmbedConfig(workers=workers, threads=1, thumbnails=None)
    return fit(items, config, **{"device": "cpu", "progress": "none", "embedding": embedding} | options)


def trained_bits(result: FitResult) -> dict[str, bytes]:
    """Return the weights of the space and of its trained encoders."""
    tensors = dict(result.space.state_dict())
    for name in result.space.encoders:
        encoder = result.space._loaded_encoders.given(result.space.encoders[name])
        if encoder is not None and encoder.module is not None:
            tensors |= {f"{name}/{key}": tensor for key, tensor in encoder.module.state_dict().items()}
    return {name: tensor.detach().contiguous().numpy().tobytes() for name, tensor in tensors.items()}


class Net(nn.Module):
    """A small network that records how many rows it encoded with gradient."""

    def __init__(self, width: int = 192, dim: int = 6, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.norm, self.last = nn.Linear(width, 12), nn.BatchNorm1d(12), nn.Linear(12, dim)
        self.dropout = nn.Dropout(dropout)
        self.rows = 0

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            self.rows += len(x)
        hidden = self.norm(self.first(x.flatten(1).to(self.first.weight.dtype) / 64))
        found: Tensor = self.last(self.dropout(torch.tanh(hidden)))
        return found


def wrapped(**options: Any) -> Encoder:
    return wrap(Net(**options), media="image", dim=6, prepare=embed_prepare.pixels, name="net")


def wrapped_text(**options: Any) -> Encoder:
    return wrap(Net(16, 5, **options), media="text", dim=5, prepare=embed_prepare.letters, name="text net")


def encoded_by(result: FitResult, items: Items, folder: Path) -> Mapping[str, Tensor]:
    return result.space.encode({"image": [folder / f"{i}.png" for i in (0, 1)], "text": ["red number 0", None]})
