"""Pictures as files and grids, with the core install alone; Pillow only reads thumbnails.

Shapes: `N` pictures, `S` pixels a side, `H` and `W` of a whole grid.
"""

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign._checks import check_integer
from unialign._files import replace_file
from unialign.data import EmbeddingStore
from unialign.errors import DataError, MissingExtra, NonFiniteError, ShapeError

__all__ = ["grid", "png_bytes", "read_thumbnails", "strip", "write_png"]

THUMBNAILS = "thumbnails.zip"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_EIGHT_BIT_RGB = (8, 2, 0, 0, 0)


def png_bytes(picture: Tensor) -> bytes:
    """A PNG file (RGB, 8 bit) of (3, H, W): uint8, or float in [0, 1].

    Raises:
        ShapeError: not (3, H, W), or of another dtype.
        NonFiniteError: NaN, or a number outside [0, 1].
    """
    pixels = _bytes(picture).permute(1, 2, 0).contiguous().numpy()
    height, width = pixels.shape[:2]
    # Each line begins with the number of its filter, 0 for none.
    lines = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, 3 * width)], axis=1)
    header = struct.pack(">IIBBBBB", width, height, *_EIGHT_BIT_RGB)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    return _SIGNATURE + b"".join(_chunk(kind, data) for kind, data in chunks)


def write_png(path: str | os.PathLike[str], picture: Tensor) -> None:
    """Write a picture as a PNG file, whole or not at all; see `png_bytes`."""
    replace_file(Path(path), png_bytes(picture))


def grid(rows: Sequence[Sequence[Tensor | None]], *, gap: int = 2, scale: int = 1, background: float = 1.0) -> Tensor:
    """Pictures of one size in rows, (3, H, W) float32.

    Args:
        rows: of (3, S, S) pictures; None, and what a short row lacks, stays empty.
        gap: pixels between pictures, after scaling.
        scale: each pixel becomes scale x scale.
        background: grey value in [0, 1].
    """
    check_integer("gap", gap, low=0)
    check_integer("scale", scale, low=1)
    known = [cell for row in rows for cell in row if cell is not None]
    if not known:
        raise ShapeError("a grid needs at least one picture")
    shape = known[0].shape
    for cell in known:
        if cell.ndim != 3 or cell.shape != shape:
            raise ShapeError(f"pictures of a grid are {tuple(cell.shape)} and {tuple(shape)}; they must be of one size")
    height, width = shape[1] * scale, shape[2] * scale
    columns = max(len(row) for row in rows)
    out = torch.full((3, len(rows) * (height + gap) - gap, columns * (width + gap) - gap), float(background))
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            if picture is not None:
                large = (_bytes(picture).float() / 255).repeat_interleave(scale, 1).repeat_interleave(scale, 2)
                top, left = i * (height + gap), j * (width + gap)
                out[:, top : top + height, left : left + width] = large
    return out


def strip(pictures: Tensor, *, gap: int = 2, scale: int = 1) -> Tensor:
    """(T, 3, S, S) pictures side by side."""
    return grid([list(pictures)], gap=gap, scale=scale)


def read_thumbnails(store: EmbeddingStore, modality: str, rows: Sequence[int] | NDArray[np.int64], size: int) -> Tensor:
    """The pictures of items on white, (N, 3, size, size) float32 in [0, 1], from the store's asset `thumbnails.zip`.

    Args:
        modality: whose `<modality>/<row>.webp` (or .png, .jpg).
        rows: of the store.
        size: pixels a side; a whole fraction of the picture's own is an average of blocks.

    Raises:
        DataError: the store has no thumbnails, or not of this modality and row, or one is damaged.
        MissingExtra: Pillow is not installed.
    """
    check_integer("size", size, low=1)
    if THUMBNAILS not in store.assets:
        raise DataError(f"{store.name!r} has no asset {THUMBNAILS}; write the store with it, or give pictures=")
    try:
        image: Any = import_module("PIL.Image")
    except ImportError:
        raise MissingExtra("reading thumbnails needs Pillow: pip install 'unialign[generate]'") from None
    out = torch.empty(len(rows), 3, size, size)
    try:
        with zipfile.ZipFile(io.BytesIO(store.asset(THUMBNAILS))) as archive:
            names = {name.rpartition(".")[0]: name for name in archive.namelist()}
            for i, row in enumerate(rows):
                name = names.get(f"{modality}/{row}")
                if name is None:
                    raise DataError(f"{THUMBNAILS} of {store.name!r} has no picture of {modality!r} for row {row}")
                out[i] = _read(image, archive.read(name), f"{name} in {THUMBNAILS} of {store.name!r}", size)
    except zipfile.BadZipFile as error:
        raise DataError(f"{THUMBNAILS} of {store.name!r} is no zip archive ({error}); write the store again") from None
    return out


def _read(image: Any, data: bytes, what: str, size: int) -> Tensor:
    try:
        with image.open(io.BytesIO(data)) as file:
            picture = file.convert("RGBA")
    except Exception as error:  # a damaged picture: the decoders raise anything
        raise DataError(f"{what} cannot be read ({error}); write the store again") from None
    white = image.new("RGBA", picture.size, "white")
    white.alpha_composite(picture)
    whole = picture.size[0] % size == 0 and picture.size[1] % size == 0
    resampling = image.Resampling.BOX if whole else image.Resampling.BICUBIC
    small = white.convert("RGB")
    if small.size != (size, size):
        small = small.resize((size, size), resampling)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1).float() / 255


def _bytes(picture: Any) -> Tensor:
    if not isinstance(picture, Tensor) or picture.ndim != 3 or picture.shape[0] != 3 or 0 in picture.shape:
        found = tuple(picture.shape) if isinstance(picture, Tensor) else type(picture).__name__
        raise ShapeError(f"a picture is a tensor (3, H, W), got {found}")
    pixels: Tensor = picture.detach().cpu()
    if pixels.dtype == torch.uint8:
        return pixels
    if not pixels.is_floating_point():
        raise ShapeError(f"a picture is uint8 or float in [0, 1], got {pixels.dtype}")
    if not (float(pixels.min()) >= 0 and float(pixels.max()) <= 1):
        raise NonFiniteError(
            f"a picture holds numbers from {float(pixels.min()):g} to {float(pixels.max()):g}; expected [0, 1]"
        )
    return (pixels * 255).round().to(torch.uint8)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
