"""Define a small store with labels and three splits, and searches on it that take seconds."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from unialign.config import HyperparameterSearchConfig
from unialign.data import EmbeddingStore

DIMS = {"image": 8, "text": 7, "audio": 6}
SPLIT = np.array(["train"] * 60 + ["val"] * 20 + ["test"] * 20)
# Fixed settings with which a trial takes a fraction of a second.
FIXED: dict[str, Any] = {
    "dim": 6,
    "epochs": 2,
    "batch_size": 32,
    "init_regularization": 0.1,
    "init_spectrum_power": 0.0,
}


def small_store(path: Path | None = None, *, labels: bool = True, shifted_test: float = 0.0) -> EmbeddingStore:
    """Return a store; `shifted_test` is added to the features of the test rows."""
    rng = np.random.default_rng(0)
    label_N = np.arange(len(SPLIT)) % 4
    latent = rng.normal(size=(len(SPLIT), 4)) + 2 * rng.normal(size=(4, 4))[label_N]
    columns = {
        name: np.tanh(latent @ rng.normal(size=(4, dim))) + 0.4 * rng.normal(size=(len(SPLIT), dim))
        for name, dim in DIMS.items()
    }
    for column in columns.values():
        column[SPLIT == "test"] += shifted_test
    present = {"audio": np.arange(len(SPLIT)) % 5 != 1}
    options: dict[str, Any] = {"split": SPLIT, "present": present, **({"labels": label_N} if labels else {})}
    if path is None:
        return EmbeddingStore.from_arrays(columns, name="small", **options)
    return EmbeddingStore.write(path, columns, name="small", **options)


def small_search(**changes: Any) -> HyperparameterSearchConfig:
    settings: dict[str, Any] = {
        "trials": 6,
        "objectives": ("infonce", "gcca"),
        "seeds": 2,
        "top": 2,
        "lag": 3,
        "resamples": 400,
        "fixed": FIXED,
    }
    return HyperparameterSearchConfig(**settings | changes)


def lines(folder: Path) -> dict[tuple[int, int], dict[str, Any]]:
    """Return the trials of a folder without times, by number and seed."""
    found = {}
    for text in (folder / "trials.jsonl").read_text("utf-8").splitlines():
        line = json.loads(text)
        del line["seconds"], line["elapsed"]
        found[line["number"], line["seed"]] = line
    return found
