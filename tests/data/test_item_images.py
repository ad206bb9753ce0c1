"""Test `assets=` of a store with a folder of images or one image file per item."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unialign.data import THUMBNAILS, EmbeddingStore, Thumbnails
from unialign.errors import DataError, MissingDependencyError, ShapeError
from unialign.experiments import write_items

COLUMNS = {"image-clip": np.eye(4), "text": np.eye(4)}


def picture(path: Path, value: int, size: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size), (value, 0, 0)).save(path)
    return path


def reds(store: EmbeddingStore, column: str = "image-clip") -> list[int | None]:
    """Return the red value of the image of each item, or None for items without an image."""
    images, found = Thumbnails(store.asset(THUMBNAILS)), []
    for row in range(store.items):
        entry = images.read(column, row)
        found.append(None if entry is None else _red(entry[0]))
    return found


def _red(data: bytes) -> int:
    import io

    with Image.open(io.BytesIO(data)) as image:
        return round(image.convert("RGB").getpixel((0, 0))[0] / 10) * 10


def test_files_of_a_folder_find_their_items(tmp_path: Path) -> None:
    for stem, value in (("cat", 10), ("dog", 20), ("owl", 30)):
        picture(tmp_path / "named" / f"{stem}.png", value)
    for number in (1, 2, 3, 10):
        picture(tmp_path / "numbered" / f"img_{number}.png", 10 * number)
    for row in (0, 3):
        picture(tmp_path / "some" / f"{row:05}.jpg", 10 * row, size=300)
    named, numbered = tmp_path / "named", tmp_path / "numbered"
    cases = [
        (named, {"names": ["owl", "none", "cat", "dog"]}, [30, None, 10, 20]),
        ({"image-clip": str(named)}, {"names": ["x", "owl", "cat", "dog"]}, [None, 30, 10, 20]),
        (named, {"ids": np.array(["dog", "cat", "owl", "dog"])}, [20, 10, 30, 20]),
        (numbered, {}, [10, 20, 30, 100]),
        (tmp_path / "some", {}, [0, None, None, 30]),
        ({"image-clip": [named / "dog.png", None, str(named / "owl.png"), None]}, {}, [20, None, 30, None]),
    ]
    for assets, options, expected in cases:
        store = EmbeddingStore.from_arrays(COLUMNS, assets=assets, **options)
        assert reds(store) == expected
        assert store.fingerprint == EmbeddingStore.from_arrays(COLUMNS, **options).fingerprint
    assert max(len(Thumbnails(store.asset(THUMBNAILS)).read(*key)[0]) for key in [("image-clip", 0)]) < 1000
    by_column = tmp_path / "columns"
    picture(by_column / "text" / "0.png", 50)
    store = EmbeddingStore.write(tmp_path / "s", COLUMNS, assets=by_column, split=["test"] * 4)
    assert reds(store, "text") == [50, None, None, None]
    write_items(tmp_path, EmbeddingStore.from_arrays(COLUMNS, assets=numbered, split=["test"] * 4), "test")
    assert Thumbnails(tmp_path / THUMBNAILS).modalities == {"image-clip"}, "a name that is no identifier"


def test_images_that_fit_no_item_are_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = tmp_path / "images"
    for stem in ("a", "b", "c"):
        picture(images / f"{stem}.png", 10, size=300)
    (images / "broken.png").write_bytes(b"no image")
    (tmp_path / "empty").mkdir()
    columns = {"audio": np.eye(3), "text": np.eye(3)}
    cases = [
        (images, {}, DataError, "cannot determine the column"),
        (tmp_path / "empty", {"default_modalities": ["audio"]}, DataError, "cannot determine the column"),
        ({"text": images}, {}, DataError, r"cannot match the 4 images in .* to 3 items"),
        ({"text": tmp_path / "empty"}, {}, DataError, "no image files"),
        ({"text": tmp_path / "missing"}, {}, DataError, "not a folder"),
        ({"text": [images / "a.png"]}, {}, ShapeError, "1 files for 3 items"),
        ({"text": [1, 2, 3]}, {}, DataError, "expected a path"),
        ({"text": 5}, {}, DataError, "one image file per item"),
        ({"image": images}, {}, DataError, "pass images by column"),
        ({"text": [images / "broken.png", None, None]}, {}, DataError, "broken.png is damaged"),
        ({"text": [images / "gone.png", None, None]}, {}, DataError, "cannot be read"),
        ({"text": [images / "a.png", None, None], THUMBNAILS: b"1"}, {}, DataError, "pass only one of the two"),
        ({"text": images}, {"names": ["a", "x", "y"]}, DataError, r"3 of 4 images .* such as b\.png"),
        ({"text": images}, {"ids": ["x", "b", "c"]}, DataError, r"2 of 4 images .* such as a\.png"),
        (7, {}, DataError, "folder of images"),
    ]
    for assets, options, error, message in cases:
        with pytest.raises(error, match=message):
            EmbeddingStore.from_arrays(columns, assets=assets, **options)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    small = images / "small.png"
    small.write_bytes(b"unchanged")
    store = EmbeddingStore.from_arrays(columns, assets={"text": [small, None, None]})
    assert Thumbnails(store.asset(THUMBNAILS)).read("text", 0) == (b"unchanged", "png")
    (images / "large.tif").write_bytes(b"0")
    with pytest.raises(MissingDependencyError, match=r"unialign\[images\]"):
        EmbeddingStore.from_arrays(columns, assets={"text": [images / "large.tif", None, None]})
