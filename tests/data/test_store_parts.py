"""Test that writing columns in parts gives the same store as whole arrays, with the memory of a few parts."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unialign.data import EmbeddingStore
from unialign.errors import DataError, NonFiniteError, ShapeError

N = 23
rng = np.random.default_rng(0)
IMAGE = rng.normal(size=(N, 4)).astype(np.float16)
TEXT = rng.normal(size=(N, 3))
OPTIONS: dict[str, Any] = {"present": {"text": np.arange(N) % 4 != 1}, "ids": np.arange(N) // 2, "split": ["test"] * N}


def parts(array: Any, size: int = 5) -> Iterator[Any]:
    for start in range(0, N, size):
        yield array[start : start + size]


def together(size: int = 5) -> Iterator[dict[str, Any]]:
    for start in range(0, N, size):
        yield {"image": IMAGE[start : start + size], "text": torch.from_numpy(TEXT[start : start + size])}


class Loader:
    """An iterable with a length, such as a DataLoader."""

    def __len__(self) -> int:
        return 5

    def __iter__(self) -> Iterator[Any]:
        return together()


def test_the_store_equals_that_of_whole_arrays(tmp_path: Path) -> None:
    text = TEXT.copy()
    text[~OPTIONS["present"]["text"]] = np.nan
    whole = EmbeddingStore.write(tmp_path / "whole", {"image": IMAGE, "text": text}, **OPTIONS)
    ways: list[Any] = [
        {"image": parts(IMAGE), "text": parts(text, 1)},
        {"image": parts(IMAGE, 100), "text": text},
        ({"image": image, "text": more} for image, more in zip(parts(IMAGE), parts(text), strict=True)),
        {"image": iter([IMAGE[:0], np.asfortranarray(IMAGE[:9]), IMAGE[9:9], IMAGE[9:]]), "text": parts(text, 7)},
    ]
    for number, columns in enumerate(ways):
        store = EmbeddingStore.write(tmp_path / str(number), columns, **OPTIONS)
        assert store.fingerprint == whole.fingerprint
        assert store.columns == ("image", "text")
        store.verify()
        for file in ("arrays/image.npy", "arrays/text.npy"):
            assert (tmp_path / str(number) / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    loaded = EmbeddingStore.write(tmp_path / "loader", Loader())
    np.testing.assert_array_equal(loaded.array("text"), TEXT)


def test_invalid_parts_leave_nothing_behind(tmp_path: Path) -> None:
    bad = TEXT.copy()
    bad[17, 1] = np.inf

    def interrupted() -> Iterator[Any]:
        yield IMAGE
        raise KeyboardInterrupt

    cases: list[tuple[Any, type[BaseException], str]] = [
        ({"text": parts(bad)}, NonFiniteError, "'text', row 17 holds inf at position 1"),
        ({"text": iter([TEXT, TEXT[:, :2]])}, ShapeError, "part 1 of column 'text' has dim 2 .* part 0 has dim 3"),
        (
            {"text": iter([TEXT, IMAGE[:, :3]])},
            ShapeError,
            "part 1 of column 'text' has .* float16, but part 0 .* float64",
        ),
        ({"text": iter([TEXT, TEXT[0]])}, ShapeError, r"part 1: column 'text' has shape \(3,\)"),
        ({"text": iter([])}, ShapeError, "'text' has no rows in 0 parts"),
        ({"text": iter([TEXT[:0]])}, ShapeError, "'text' has no rows in 1 parts"),
        ({"text": parts(TEXT), "image": IMAGE[:3]}, ShapeError, "'image' has 3 rows, 'text' has 23"),
        ({"../text": parts(TEXT)}, DataError, "cannot be a file name"),
        (iter([]), ShapeError, "yields no parts"),
        (iter([TEXT]), ShapeError, "part 0 is a ndarray, expected a mapping"),
        (iter([{"a": TEXT}, {"b": TEXT}]), ShapeError, r"part 1 has the columns \['b'\], but part 0 has \['a'\]"),
        (iter([{"a": TEXT, "b": TEXT[:3]}]), ShapeError, "different numbers of rows: {'a': 23, 'b': 3}"),
        ({"image": interrupted()}, KeyboardInterrupt, "^$"),
    ]
    for columns, error, message in cases:
        with pytest.raises(error, match=message):
            EmbeddingStore.write(tmp_path / "s", columns)
        assert list(tmp_path.iterdir()) == []
    for mask in (np.ones(20, dtype=bool), np.ones(N)):
        with pytest.raises(ShapeError, match="present of 'text' has dtype"):
            EmbeddingStore.write(tmp_path / "s", {"text": parts(TEXT)}, present={"text": mask})
    with pytest.raises(ShapeError, match="whole arrays; use `write`"):
        EmbeddingStore.from_arrays({"text": parts(TEXT)})


def test_memory_is_bounded_by_a_part(tmp_path: Path) -> None:
    part = np.ones((1000, 64), dtype=np.float32)
    peaks = []
    for count in (4, 64):
        tracemalloc.start()
        EmbeddingStore.write(tmp_path / str(count), ({"x": part, "y": part} for _ in range(count)))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # The larger store takes 32.8 MB on disk.
    assert peaks[1] < peaks[0] + 5e6 < 15e6
