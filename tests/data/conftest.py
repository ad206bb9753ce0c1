"""Define a small store with all optional contents, and functions that damage the folder of a store."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unialign import data
from unialign.data import EmbeddingStore

ITEMS = 12


@pytest.fixture
def columns() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "image": rng.normal(size=(ITEMS, 4)).astype(np.float32),
        "text": rng.normal(size=(ITEMS, 3)).astype(np.float16),
        "audio": rng.normal(size=(ITEMS, 2)),
    }


@pytest.fixture
def options() -> dict[str, Any]:
    return {
        "present": {"audio": np.arange(ITEMS) % 3 > 0},
        "ids": np.arange(ITEMS) // 2,
        "groups": np.arange(ITEMS) // 2 + 100,
        "labels": np.arange(ITEMS) % 3 - 1,
        "label_names": ["cat", "dog"],
        "split": ["train"] * 6 + ["val"] * 2 + ["test"] * 4,
        "names": [f"item № {row}" for row in range(ITEMS)],
        "provenance": {"source": "made up", "columns": {"image": {"model": "none"}}},
        "default_modalities": ["text", "image"],
        "assets": {"thumbnails.zip": b"not really a zip"},
    }


@pytest.fixture
def store(tmp_path: Path, columns: dict[str, Any], options: dict[str, Any]) -> EmbeddingStore:
    return EmbeddingStore.write(tmp_path / "store", columns, **options)


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    source = data.load_dataset("digits").path
    assert source is not None
    return Path(shutil.copytree(source, tmp_path / "digits"))


@pytest.fixture
def edit() -> Callable[[Path, Callable[[dict[str, Any]], object]], None]:
    def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
        file = folder / "store.json"
        body = json.loads(file.read_text())
        change(body)
        file.write_text(json.dumps(body))

    return edit


@pytest.fixture
def plant(edit: Callable[..., None]) -> Callable[[Path, str, bytes], None]:
    def plant(folder: Path, column: str, content: bytes) -> None:
        (folder / "arrays" / f"{column}.npy").write_bytes(content)
        record = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        edit(folder, lambda body: body["columns"][column].update(array=record))

    return plant
