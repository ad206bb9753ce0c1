"""Define a tiny store with absent rows and shared ids, runs on this store, and a callback that interrupts a run."""

import hashlib
import json
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from unialign.batch import Batch
from unialign.data import EmbeddingStore, Items, Mixture
from unialign.losses import LossTerm, Objective
from unialign.train import FitResult, HealthWarning, TrainConfig, fit
from unialign.train._checkpoint import load_checkpoint, newest_checkpoint

DIMS = {"image": 6, "text": 5, "audio": 4}
TRAIN, TEST = 23, 6


def tiny_store(*, seed: int = 0, missing: str = "some", name: str = "tiny", path: Path | None = None) -> EmbeddingStore:
    """Return a store of 29 items in three modalities with a common latent; items 3 and 4 share an id.

    Absent rows contain NaN. The store is in memory, or in the folder `path`.
    """
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(TRAIN + TEST, 3))
    columns = {
        m: latent @ rng.normal(size=(3, dim)) + 0.1 * rng.normal(size=(len(latent), dim)) + 4 for m, dim in DIMS.items()
    }
    present = {}
    if missing == "some":
        for modality, keep in (("text", np.arange(TRAIN + TEST) % 5 != 2), ("audio", np.arange(TRAIN + TEST) % 3 != 0)):
            columns[modality][~keep] = np.nan
            present[modality] = keep
    ids = np.arange(TRAIN + TEST)
    ids[4] = 3
    # Test rows come first, so that indices among the training rows and in the store differ.
    rows: dict[str, Any] = {"present": present, "ids": ids, "split": ["test"] * TEST + ["train"] * TRAIN}
    if path is not None:
        return EmbeddingStore.write(path, columns, **rows)
    return EmbeddingStore.from_arrays(columns, name=name, **rows)


class Pull(Objective):
    name: ClassVar[str] = "pull"

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__()
        self.strength = torch.nn.Parameter(torch.tensor(float(strength)))
        self._strength = strength

    def terms(self, batch: Batch) -> dict[str, LossTerm]:
        distance = (batch.z_MBD[0] - batch.z_MBD[1]).square().sum(-1)
        both = batch.present_MB[0] & batch.present_MB[1]
        return {"distance": LossTerm(self.strength * distance[both].mean(), 1.0)}

    def get_config(self) -> dict[str, Any]:
        return {"strength": self._strength}


def tiny_config(**changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {
        "objective": "infonce",
        "dim": 8,
        "hidden": 16,
        "dropout": 0.3,
        "epochs": 10,
        "batch_size": 8,
        "gradient_accumulation_steps": 2,
        "lr": 0.01,
        "warmup_ratio": 0.2,
        "logging_steps": 1,
        "monitor_steps": 4,
    }
    return TrainConfig(**settings | changes)


def run(store: EmbeddingStore | Items | Mixture, config: TrainConfig, **options: Any) -> FitResult:
    return fit(store, config, **{"device": "cpu", "progress": "none"} | options)


def stop_at(step: int) -> Callable[[Mapping[str, Any]], None]:
    def interrupt(info: Mapping[str, Any]) -> None:
        if info["step"] == step:
            raise KeyboardInterrupt

    return interrupt


@dataclass(frozen=True)
class Finished:
    result: FitResult
    digest: str
    history: list[dict[str, Any]]
    checkpoint: dict[str, dict[str, bytes]]


_finished: dict[str, Finished] = {}


def finished(**changes: Any) -> Finished:
    """Return the uninterrupted run with these settings, trained once per session; tests must not change it."""
    config = tiny_config(**changes)
    key = json.dumps(config.to_dict())
    if key not in _finished:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore", HealthWarning)
            result = run(tiny_store(), config, out=Path(folder) / "run")
            checkpoint = checkpoint_bits(Path(folder) / "run")
        _finished[key] = Finished(result, digest_of(result), without_time(result.history), checkpoint)
    return _finished[key]


def bits(state: Mapping[str, Tensor]) -> dict[str, bytes]:
    return {name: tensor.detach().contiguous().numpy().tobytes() for name, tensor in state.items()}


def digest_of(result: FitResult) -> str:
    digest = hashlib.sha256()
    for state in (result.space.state_dict(), result.objective.state_dict()):
        for name, data in bits(state).items():
            digest.update(name.encode() + data)
    return digest.hexdigest()


def checkpoint_bits(out: Path) -> dict[str, dict[str, bytes]]:
    newest = newest_checkpoint(out / "checkpoints")
    assert newest is not None
    return {group: bits(tensors) for group, tensors in load_checkpoint(newest).tensors.items()}


def without_time(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in record.items() if key != "seconds"} for record in history]
