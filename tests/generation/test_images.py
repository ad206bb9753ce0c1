"""Test image files with a minimal PNG decoder, grids with loops, and thumbnails with Pillow."""

import io
import struct
import sys
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from unialign.data import EmbeddingStore, load_dataset
from unialign.errors import ConfigError, DataError, MissingDependencyError, NonFiniteError, ShapeError
from unialign.generation import grid, png_bytes, read_thumbnails, write_png
from unialign.generation._images import resize

RED, GREEN = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def plain(color: tuple[float, float, float], size: int = 2) -> Tensor:
    return torch.tensor(color)[:, None, None].expand(3, size, size)


def decoded(data: bytes) -> Tensor:
    """Decode an 8-bit RGB PNG file without line filters to a uint8 tensor of shape (3, H, W)."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, kinds, packed, width, height = 8, [], b"", 0, 0
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + body)
        kinds.append(kind)
        if kind == b"IHDR":
            width, height = struct.unpack(">II", body[:8])
            assert tuple(body[8:]) == (8, 2, 0, 0, 0)
        packed += body if kind == b"IDAT" else b""
        at += 12 + length
    assert kinds[0] == b"IHDR"
    assert kinds[-1] == b"IEND"
    lines = zlib.decompress(packed)
    assert len(lines) == height * (1 + 3 * width)
    out = torch.empty(3, height, width, dtype=torch.uint8)
    for y in range(height):
        line = lines[y * (1 + 3 * width) : (y + 1) * (1 + 3 * width)]
        assert line[0] == 0
        for x in range(width):
            for c in range(3):
                out[c, y, x] = line[1 + 3 * x + c]
    return out


def rgba(size: tuple[int, int], seed: int = 0, kind: str = "WEBP") -> bytes:
    pil = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    file = io.BytesIO()
    pil.fromarray(pixels).save(file, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
    return file.getvalue()


def zipped(files: Mapping[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return file.getvalue()


def store(assets: Mapping[str, bytes]) -> EmbeddingStore:
    columns = {"image": np.ones((4, 2), np.float32), "text": np.ones((4, 2), np.float32)}
    return EmbeddingStore.from_arrays(columns, assets=assets, name="painted")


# --- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 1, 1), (3, 5, 7), (3, 32, 32)])
def test_a_png_holds_the_pixels(shape: tuple[int, ...]) -> None:
    pixels = (noise(*shape) * 255).round().to(torch.uint8)
    for image in (pixels, pixels.numpy(), pixels.float() / 255, pixels.double() / 255):
        assert torch.equal(decoded(png_bytes(image)), pixels)


def test_pillow_reads_the_same() -> None:
    pil = pytest.importorskip("PIL.Image")
    image = noise(3, 9, 6)
    with pil.open(io.BytesIO(png_bytes(image))) as opened:
        assert (opened.mode, opened.size) == ("RGB", (6, 9))
        pixels = torch.from_numpy(np.array(opened)).permute(2, 0, 1)
    assert torch.equal(pixels, (image * 255).round().to(torch.uint8))


def test_numbers_are_rounded_to_the_nearest_byte() -> None:
    values = torch.tensor([0.0, 0.49 / 255, 0.51 / 255, 254.51 / 255, 1.0])
    assert decoded(png_bytes(values.expand(3, 1, 5)))[0, 0].tolist() == [0, 0, 1, 255, 255]


def test_an_image_may_have_any_strides_and_a_gradient() -> None:
    image = noise(4, 6, 3).permute(2, 1, 0).requires_grad_()
    assert torch.equal(decoded(png_bytes(image)), (image.detach() * 255).round().to(torch.uint8))


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "image.png"
    for seed in range(2):
        image = noise(3, 4, 4, seed=seed)
        write_png(path, image)
        assert path.read_bytes() == png_bytes(image)
    with pytest.raises(NonFiniteError):
        write_png(str(path), image * 2)
    assert path.read_bytes() == png_bytes(image)
    assert [file.name for file in path.parent.iterdir()] == ["image.png"]


def test_invalid_images_raise() -> None:
    for image, error, message in (
        (noise(1, 4, 4), ShapeError, r"an image has shape \(1, 4, 4\); expected \(3, H, W\)"),
        (noise(2, 3, 4, 4), ShapeError, r"expected \(3, H, W\)"),
        (noise(3, 0, 4), ShapeError, r"expected \(3, H, W\)"),
        ("image.png", ShapeError, "cannot be converted to a tensor"),
        (torch.zeros(3, 2, 2, dtype=torch.int64), ShapeError, "dtype torch.int64; expected uint8, or float"),
        (torch.zeros(3, 2, 2, dtype=torch.bool), ShapeError, "dtype torch.bool"),
        (torch.full((3, 2, 2), torch.nan), NonFiniteError, "from nan to nan"),
        (noise(3, 2, 2) * 255, NonFiniteError, r"expected \[0, 1\]"),
        (noise(3, 2, 2) - 1, NonFiniteError, r"expected \[0, 1\]"),
    ):
        with pytest.raises(error, match=message):
            png_bytes(image)


def test_an_invalid_path_raises(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the path of an image must be a path"):
        write_png(3, noise(3, 2, 2))  # type: ignore[arg-type]
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        write_png(tmp_path / "file" / "image.png", noise(3, 2, 2))


# --- grids ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gap", "scale"), [(0, 1), (2, 1), (1, 3)])
def test_every_pixel_of_a_grid_is_where_it_belongs(gap: int, scale: int) -> None:
    images = noise(2, 3, 3, 4, 5)
    out = grid(images, gap=gap, scale=scale)
    height, width = 4 * scale + gap, 5 * scale + gap
    assert out.shape == (3, 2 * height - gap, 3 * width - gap)
    for y in range(out.shape[1]):
        for x in range(out.shape[2]):
            (i, v), (j, u) = divmod(y, height), divmod(x, width)
            inside = v < 4 * scale and u < 5 * scale
            expected = images[i, j, :, v // scale, u // scale] if inside else torch.ones(3)
            assert torch.equal(out[:, y, x], expected)


def test_cells_may_be_empty_and_rows_short() -> None:
    out = grid([[None, plain(RED)], [plain(GREEN)]], gap=1)
    white = torch.ones(3)
    assert out.shape == (3, 5, 5)
    assert torch.equal(out[:, 0, 0], white)
    assert torch.equal(out[:, 1, 4], torch.tensor(RED))
    assert torch.equal(out[:, 4, 1], torch.tensor(GREEN))
    assert torch.equal(out[:, 4, 4], white)


def test_bytes_and_numbers_go_together() -> None:
    pixels = (noise(3, 4, 4) * 255).to(torch.uint8)
    out = grid([[pixels, pixels.float() / 255]], gap=0)
    assert out.dtype == torch.float32
    assert torch.equal(out[..., :4], out[..., 4:])
    assert torch.equal(decoded(png_bytes(out))[..., :4], pixels)


def test_a_tensor_in_a_list_is_one_row() -> None:
    images = noise(4, 3, 5, 5)
    assert torch.equal(grid([images], gap=3, scale=2), grid(images[None], gap=3, scale=2))


def test_invalid_grids_raise() -> None:
    for call, error, message in (
        (lambda x: grid([]), ShapeError, "at least one image"),
        (lambda x: grid([[None], []]), ShapeError, "at least one image"),
        (lambda x: grid(x), ShapeError, r"grid expects \(R, C, 3, S, S\)"),
        (
            lambda x: grid([[x[0]], [None, x[1, :, :2]]]),
            ShapeError,
            r"the same shape, got .* \(3, 2, 4\) in row 1, column 1",
        ),
        (lambda x: grid([[x[0], x[1] * 9]]), NonFiniteError, "row 0, column 1 has values"),
        (lambda x: grid([x[0]]), ShapeError, r"row 0, column 0 has shape \(4, 4\)"),
        (lambda x: grid([x], gap=-1), ConfigError, "gap"),
        (lambda x: grid([x], scale=0), ConfigError, "scale"),
        (lambda x: grid([x], scale=1.5), ConfigError, "scale"),
    ):
        with pytest.raises(error, match=message):
            call(noise(2, 3, 4, 4))


# --- sizes ----------------------------------------------------------------------------------------------------------


def test_a_whole_fraction_is_the_mean_of_blocks() -> None:
    images = noise(2, 3, 12, 12)
    small = resize(images, 4)
    for y in range(4):
        for x in range(4):
            block = images[:, :, 3 * y : 3 * y + 3, 3 * x : 3 * x + 3]
            torch.testing.assert_close(small[:, :, y, x], block.mean((2, 3)))
    assert torch.equal(resize(images, 12), images)


@pytest.mark.parametrize("size", [1, 5, 8, 30])
def test_any_size_keeps_the_range_and_the_color(size: int) -> None:
    images = torch.cat([noise(1, 3, 12, 12).round(), plain((0.2, 0.5, 0.9), 12)[None]])
    out = resize(images, size)
    assert out.shape == (2, 3, size, size)
    assert float(out.min()) >= 0
    assert float(out.max()) <= 1
    torch.testing.assert_close(out[1], plain((0.2, 0.5, 0.9), size))
    torch.testing.assert_close(out[0].mean(), images[0].mean(), atol=0.05, rtol=0)


def test_fine_stripes_become_gray_not_stripes() -> None:
    stripes = (torch.arange(64) % 2).float().expand(1, 3, 64, 64)
    inner = resize(stripes, 10)[..., 1:-1, 1:-1]
    assert float((inner - 0.5).abs().max()) < 0.1


def test_invalid_sizes_raise() -> None:
    with pytest.raises(ConfigError, match="size"):
        resize(noise(1, 3, 4, 4), 0)
    with pytest.raises(ShapeError, match=r"expected \(N, 3, S, S\)"):
        resize(noise(3, 4, 4), 2)
    with pytest.raises(NonFiniteError, match="row 1, contains NaN"):
        resize(torch.stack([noise(3, 4, 4), torch.full((3, 4, 4), torch.nan)]), 2)


# --- thumbnails -----------------------------------------------------------------------------------------------------


def composed(data: bytes) -> np.ndarray[Any, Any]:
    pil = pytest.importorskip("PIL.Image")
    pixels = np.array(pil.open(io.BytesIO(data)).convert("RGBA")).astype(np.float64) / 255
    return pixels[..., :3] * pixels[..., 3:] + 1 - pixels[..., 3:]


def test_thumbnails_are_means_of_blocks_on_white() -> None:
    files = {f"image/{row}.webp": rgba((12, 12), seed=row) for row in (0, 1, 3)}
    out = read_thumbnails(store({"thumbnails.zip": zipped(files)}), "image", [3, 0], 4)
    assert (out.dtype, out.shape) == (torch.float32, (2, 3, 4, 4))
    for i, row in enumerate((3, 0)):
        white = composed(files[f"image/{row}.webp"])
        for y in range(4):
            for x in range(4):
                block = white[3 * y : 3 * y + 3, 3 * x : 3 * x + 3].mean((0, 1))
                np.testing.assert_allclose(out[i, :, y, x].numpy(), block, atol=1.5 / 255)


def test_thumbnails_of_any_kind_size_and_shape() -> None:
    files = {"image/0.png": rgba((8, 8), kind="PNG"), "image/1.png": rgba((8, 4), kind="PNG")}
    data = store({"thumbnails.zip": zipped(files)})
    same = read_thumbnails(data, "image", np.array([0]), 8)
    np.testing.assert_allclose(same[0].permute(1, 2, 0).numpy(), composed(files["image/0.png"]), atol=1.5 / 255)
    wide = read_thumbnails(data, "image", torch.tensor([1]), 8)[0]  # type: ignore[arg-type]
    np.testing.assert_allclose(wide[:, 2:6].permute(1, 2, 0).numpy(), composed(files["image/1.png"]), atol=1.5 / 255)
    assert bool((wide[:, [0, 1, 6, 7]] == 1).all())
    assert read_thumbnails(data, "image", [0], 5).shape == (1, 3, 5, 5)
    assert read_thumbnails(data, "image", [], 5).shape == (0, 3, 5, 5)


def test_thumbnails_of_the_shipped_set() -> None:
    pytest.importorskip("PIL.Image")
    emoji = load_dataset("emoji")
    rows = [0, 700, emoji.items - 1]
    small, large = (read_thumbnails(emoji, "image", rows, size) for size in (32, 64))
    torch.testing.assert_close(small, resize(large, 32), atol=2 / 255, rtol=0)
    assert float(large[:, :, 0, 0].min()) > 0.95
    assert read_thumbnails(emoji, "drawing", [5], 20).shape == (1, 3, 20, 20)


def test_missing_thumbnails_name_the_row() -> None:
    data = store({"thumbnails.zip": zipped({"image/0.webp": rgba((4, 4))})})
    with pytest.raises(DataError, match="no image of 'image' for row 2; it has images of 'image', and the store has 4"):
        read_thumbnails(data, "image", [0, 2], 4)
    with pytest.raises(DataError, match="no image of 'drawing' for row 0"):
        read_thumbnails(data, "drawing", [0], 4)
    with pytest.raises(DataError, match=r"'painted' has no asset thumbnails\.zip"):
        read_thumbnails(store({}), "image", [0], 4)
    with pytest.raises(DataError, match="for row -1"):
        read_thumbnails(data, "image", [-1], 4)
    for rows in ([True], [0.0], [[0]], ["0"]):
        with pytest.raises(ShapeError, match="rows must be integers"):
            read_thumbnails(data, "image", rows, 4)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="size"):
        read_thumbnails(data, "image", [0], 0)


def test_damaged_thumbnails_name_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = rgba((16, 16), kind="PNG")
    with pytest.raises(DataError, match="is not a zip archive"):
        read_thumbnails(store({"thumbnails.zip": b"no zip"}), "image", [0], 4)
    cut = {"image/0.png": whole[: len(whole) // 2], "image/1.png": b"", "image/2.png": b"text"}
    for row in range(3):
        with pytest.raises(DataError, match=rf"image/{row}\.png in thumbnails\.zip of 'painted' cannot be read"):
            read_thumbnails(store({"thumbnails.zip": zipped(cut)}), "image", [row], 4)
    archive = bytearray(zipped({"image/3.png": whole}))
    archive[archive.index(whole) + 60] ^= 1  # The content no longer matches the checksum in the archive.
    with pytest.raises(DataError, match=r"image/3\.png in thumbnails\.zip of 'painted' cannot be read \(Bad CRC"):
        read_thumbnails(store({"thumbnails.zip": bytes(archive)}), "image", [3], 4)
    monkeypatch.setattr("unialign.data._thumbnails._MAX_BYTES", 100)
    with pytest.raises(DataError, match="expected a thumbnail of at most 100"):
        read_thumbnails(store({"thumbnails.zip": zipped({"image/0.png": whole})}), "image", [0], 4)


def test_without_pillow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(MissingDependencyError, match=r"unialign\[images\]"):
        read_thumbnails(store({"thumbnails.zip": zipped({})}), "image", [0], 4)
    assert decoded(png_bytes(grid([[noise(3, 2, 2)]]))).shape == (3, 2, 2)


def test_an_archive_cannot_fill_the_memory_run_programs_or_hide_an_image() -> None:
    pil = pytest.importorskip("PIL.Image")

    def store_of(**files: bytes) -> EmbeddingStore:
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as written:
            for name, data in files.items():
                written.writestr(name, data)
        return EmbeddingStore.from_arrays({"image": np.ones((1, 2))}, assets={"thumbnails.zip": archive.getvalue()})

    def png(width: int, height: int) -> bytes:
        file = io.BytesIO()
        pil.new("1", (width, height)).save(file, "png")
        return file.getvalue()

    with pytest.raises(DataError, match="1 x 60000 pixels"):
        read_thumbnails(store_of(**{"image/0.png": png(1, 60000)}), "image", [0], 8)
    with pytest.raises(DataError, match="cannot be read"):
        read_thumbnails(
            store_of(**{"image/0.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n"}), "image", [0], 8
        )
    beside = store_of(**{"image/0.png": png(8, 8), "image/0.txt": b"a note", "image/0.d/x": b""})
    assert read_thumbnails(beside, "image", [0], 8).shape == (1, 3, 8, 8)
