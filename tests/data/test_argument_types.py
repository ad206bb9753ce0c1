"""Test that paths, names and mappings of the wrong type raise one of the package's own errors."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unialign import data
from unialign.data import EmbeddingStore
from unialign.errors import ConfigError, DataError, ShapeError
from unialign.io import _atomic

COLUMNS = {"a": np.ones((2, 3), dtype=np.float32)}
LONE = "half \ud800 pair"
PATHS: dict[str, Any] = {
    "none": None,
    "number": 5,
    "list": [1],
    "bytes": b"store",
    "too long": "x" * 5000,
    "deep": "/".join(["x" * 200] * 50),
    "null": "a\0b",
    "surrogate": LONE,
}


def test_paths() -> None:
    for path in PATHS.values():
        for call in (data.load_dataset, EmbeddingStore.open, lambda path: EmbeddingStore.write(path, COLUMNS)):
            with pytest.raises(DataError, match=r"must be a path|cannot be used|not a valid path") as caught:
                call(path)
            assert len(str(caught.value)) < 500


def test_a_link_to_itself(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for call in (data.load_dataset, EmbeddingStore.open, lambda path: EmbeddingStore.write(path, COLUMNS)):
        with pytest.raises(DataError):
            call(tmp_path / "loop")


OPTIONS: list[tuple[str, Any, type[Exception]]] = [
    *(("present", value, DataError) for value in ([1], "a", 5, np.ones(2, dtype=bool))),
    *(("present", {"a": value}, ShapeError) for value in (None, "xy", [[True], [True, False]], 5)),
    *(("names", value, DataError) for value in (5, "ab", [1, 2], ["ok", LONE])),
    *(("label_names", value, DataError) for value in (5, "ab", [1], [LONE])),
    *(("default_modalities", value, ConfigError) for value in (5, [["a"]], "a", ["b"], [np.array(["a", "b"])])),
    *(("provenance", value, DataError) for value in (5, [1], "ab", [("a", 1)], 0)),
    *(("assets", value, DataError) for value in (5, [1], {"a": 1})),
    *(("name", value, DataError) for value in (5, LONE)),
    *(("ids", value, ShapeError) for value in ("ab", ["a"], [10**30] * 2, [[1], [2, 3]], [1.0, 2.0])),
    *(("labels", value, ShapeError) for value in ("ab", [1.0, 2.0], torch.zeros(2, dtype=torch.int64, device="meta"))),
    ("split", "train", ShapeError),
]


def test_options_of_from_arrays_and_write(tmp_path: Path) -> None:
    for option, value, error in OPTIONS:
        with pytest.raises(error):
            EmbeddingStore.from_arrays(COLUMNS, **{option: value})
        with pytest.raises(error):
            EmbeddingStore.write(tmp_path / "store", COLUMNS, **{option: value})
    assert not list(tmp_path.iterdir())


COLUMN_CASES: list[tuple[Any, type[Exception]]] = [
    (5, DataError),
    ([1], DataError),
    (None, ShapeError),
    ({LONE: COLUMNS["a"]}, DataError),
    ({5: COLUMNS["a"]}, DataError),
    ({"a": "text"}, ShapeError),
    ({"a": [[1.0], [1.0, 2.0]]}, ShapeError),
    ({"a": np.ones((2, 3), dtype=np.longdouble)}, ShapeError),
    ({"a": torch.ones(2, 3).to_sparse()}, ShapeError),
    ({"a": torch.ones(2, 3, device="meta")}, ShapeError),
    ({"a": None}, ShapeError),
]


def test_columns() -> None:
    for columns, error in COLUMN_CASES:
        with pytest.raises(error):
            EmbeddingStore.from_arrays(columns)


def test_label_names_of_numpy() -> None:
    store = EmbeddingStore.from_arrays(COLUMNS, labels=[0, 1], label_names=np.array(["x", "y"]))  # type: ignore[arg-type]
    assert store.label_names == ("x", "y")


@pytest.mark.parametrize("value", [5, ["a"], None, np.array(["a", "b"])])
def test_names_asked_of_a_store(value: Any) -> None:
    store = EmbeddingStore.from_arrays(COLUMNS)
    for call in (store.array, store.present, store.dim, store.asset, store.rows):
        with pytest.raises(ConfigError, match="unknown"):
            call(value)
    if not isinstance(value, list):
        with pytest.raises(ConfigError):
            store.select(value)


def test_writers_at_once_leave_one_store_and_nothing_beside_it(tmp_path: Path) -> None:
    """Regression test: concurrent writers left folders named `.store.*.old`."""
    path = tmp_path / "store"
    EmbeddingStore.write(path, COLUMNS)

    def write(number: int) -> bool:
        try:
            EmbeddingStore.write(path, {"a": np.full((2, 3), number + 1.0)}, overwrite="replace")
        except DataError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        written = list(pool.map(write, range(64)))
    assert sum(written) >= 32
    assert [entry.name for entry in tmp_path.iterdir()] == ["store"]
    EmbeddingStore.open(path).verify()


def test_a_replacement_that_fails_puts_the_old_store_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Force the replacement by two renames, the second of which can fail.
    monkeypatch.setattr(_atomic, "exchange", lambda *_: False)
    path = tmp_path / "store"
    before = EmbeddingStore.write(path, COLUMNS)
    rename = Path.rename

    def broken(self: Path, target: Any) -> Path:
        if self.name.endswith(".partial"):
            raise OSError(5, "input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", broken)
    with pytest.raises(DataError, match="input/output error"):
        EmbeddingStore.write(path, {"a": np.full((2, 3), 2.0)}, overwrite="replace")
    assert [entry.name for entry in tmp_path.iterdir()] == ["store"]
    assert EmbeddingStore.open(path).fingerprint == before.fingerprint
