"""Pictures as files and grids: read back by an independent decoder, and by Pillow."""

import io
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unialign.data import EmbeddingStore, load
from unialign.errors import ConfigError, DataError, MissingExtra, NonFiniteError, ShapeError
from unialign.generation import grid, png_bytes, read_thumbnails, strip, write_png


def read_png(data: bytes) -> np.ndarray:
    """(H, W, 3) of an 8-bit RGB file without filters; checks every checksum."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    place, chunks = 8, []
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        kind, body = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        (checksum,) = struct.unpack(">I", data[place + 8 + length : place + 12 + length])
        assert checksum == zlib.crc32(kind + body)
        chunks.append((kind, body))
        place += 12 + length
    assert [kind for kind, _ in chunks] == [b"IHDR", b"IDAT", b"IEND"]
    width, height, *rest = struct.unpack(">IIBBBBB", chunks[0][1])
    assert rest == [8, 2, 0, 0, 0]
    lines = np.frombuffer(zlib.decompress(chunks[1][1]), np.uint8).reshape(height, 1 + 3 * width)
    assert not lines[:, 0].any()
    return lines[:, 1:].reshape(height, width, 3)


def picture(height: int = 5, width: int = 7) -> torch.Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))


def test_a_file_holds_the_picture() -> None:
    x = picture()
    expected = (x * 255).round().byte().permute(1, 2, 0).numpy()
    assert np.array_equal(read_png(png_bytes(x)), expected)
    assert png_bytes((x * 255).round().byte()) == png_bytes(x)
    pil = pytest.importorskip("PIL.Image")
    with pil.open(io.BytesIO(png_bytes(x))) as file:
        assert np.array_equal(np.asarray(file), expected)


def test_writing_replaces_whole_files(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", picture())
    write_png(tmp_path / "a.png", 1 - picture())
    assert np.array_equal(read_png((tmp_path / "a.png").read_bytes()), read_png(png_bytes(1 - picture())))
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (torch.ones(1, 4, 4), ShapeError, r"\(3, H, W\), got \(1, 4, 4\)"),
        (torch.ones(3, 0, 4), ShapeError, "got"),
        ([[1.0]], ShapeError, "got list"),
        (torch.ones(3, 4, 4, dtype=torch.int64), ShapeError, "uint8 or float"),
        (torch.full((3, 4, 4), 1.5), NonFiniteError, "from 1.5 to 1.5"),
        (torch.full((3, 4, 4), float("nan")), NonFiniteError, "from nan"),
    ],
)
def test_what_is_no_picture(given: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        png_bytes(given)


def test_a_grid_puts_pictures_where_they_belong() -> None:
    a, b = picture(2, 2), 1 - picture(2, 2)
    out = grid([[a, b], [None, a], [b]], gap=1, scale=2, background=0.5)
    assert out.shape == (3, 3 * 5 - 1, 2 * 5 - 1)
    steps = (a * 255).round() / 255
    assert torch.equal(out[:, 0:4:2, 0:4:2], steps)
    assert torch.equal(out[:, 1:4:2, 1:4:2], steps)
    assert torch.equal(out[:, 5:9:2, 5:9:2], steps)
    empty = (out[:, 4], out[:, :, 4], out[:, 5:9, :4], out[:, 10:14, 5:])
    assert all(bool((part == 0.5).all()) for part in empty)
    assert torch.equal(strip(torch.stack([a, b])), grid([[a, b]]))


def test_grids_that_cannot_be() -> None:
    with pytest.raises(ShapeError, match="at least one picture"):
        grid([[None]])
    with pytest.raises(ShapeError, match="of one size"):
        grid([[picture(2, 2), picture(3, 3)]])
    with pytest.raises(ConfigError, match="scale"):
        grid([[picture()]], scale=0)


def test_thumbnails_of_the_shipped_set() -> None:
    pytest.importorskip("PIL")
    store = load("emoji")
    rows = [0, 700, store.items - 1]
    small, large = (read_thumbnails(store, "image", rows, size) for size in (32, 64))
    assert small.shape == (3, 3, 32, 32)
    # A quarter of the pixels: each is the mean of four, up to rounding to bytes.
    torch.testing.assert_close(small, torch.nn.functional.avg_pool2d(large, 2), atol=2 / 255, rtol=0)
    assert float(large[:, :, 0, 0].min()) > 0.95  # transparent corners are white
    assert read_thumbnails(store, "drawing", [5], 20).shape == (1, 3, 20, 20)


def store_with(files: dict[str, bytes] | None, *, raw: bytes | None = None) -> EmbeddingStore:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as out:
        for name, data in (files or {}).items():
            out.writestr(name, data)
    assets = {"thumbnails.zip": raw if raw is not None else archive.getvalue()}
    return EmbeddingStore.from_arrays({"image": np.ones((3, 2))}, assets=assets if files is not None else {})


def test_thumbnails_that_are_not_there_or_damaged() -> None:
    pytest.importorskip("PIL")
    good = png_bytes(picture(4, 4))
    assert read_thumbnails(store_with({"image/0.png": good}), "image", [0], 4).shape == (1, 3, 4, 4)
    cases: list[tuple[EmbeddingStore, str]] = [
        (store_with(None), "has no asset thumbnails.zip"),
        (store_with({"image/1.png": good}), "no picture of 'image' for row 0"),
        (store_with({"image/0.png": good[:30]}), "image/0.png in thumbnails.zip of 'arrays' cannot be read"),
        (store_with({"image/0.png": good}, raw=b"no archive"), "is no zip archive"),
    ]
    for store, message in cases:
        with pytest.raises(DataError, match=message):
            read_thumbnails(store, "image", [0], 4)


def test_thumbnails_need_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "PIL.Image", None)
    with pytest.raises(MissingExtra, match=r"unialign\[generate\]"):
        read_thumbnails(store_with({"image/0.png": b""}), "image", [0], 4)
