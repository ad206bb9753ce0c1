"""Images as files and grids, with the core install alone; Pillow only reads thumbnails.

Shapes: `N` or `T` images, `S` pixels a side, `H` and `W` of any image, `R` rows and `C` columns of a grid.
"""

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign._checks import check_integer, check_number
from unialign.batch import as_dense
from unialign.data import EmbeddingStore
from unialign.errors import ConfigError, DataError, MissingDependencyError, NonFiniteError, ShapeError
from unialign.generation._extractors import check_images, resized
from unialign.io import checked_path, replace_file

__all__ = ["grid", "image_row", "png_bytes", "read_thumbnails", "resize", "write_png"]

THUMBNAILS = "thumbnails.zip"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_EIGHT_BIT_RGB = (8, 2, 0, 0, 0)
# Far above any thumbnail: a damaged or hostile archive must not fill the memory.
_LARGEST_FILE = 2**24
_MOST_SIDE = 4096
_KINDS = ("webp", "png", "jpg", "jpeg")


def png_bytes(image: Any) -> bytes:
    """A PNG file (RGB, 8 bit) of (3, H, W): uint8, or float in [0, 1].

    Raises:
        ShapeError: not (3, H, W), or neither uint8 nor float.
        NonFiniteError: NaN, or a number outside [0, 1].
    """
    x = _checked(image, "an image")
    pixels = (x if x.dtype == torch.uint8 else (x * 255).round().to(torch.uint8)).permute(1, 2, 0).contiguous().numpy()
    height, width = pixels.shape[:2]
    # Each line begins with the number of its filter, 0 for none.
    lines = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, 3 * width)], axis=1)
    header = struct.pack(">IIBBBBB", width, height, *_EIGHT_BIT_RGB)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    return _SIGNATURE + b"".join(_chunk(kind, data) for kind, data in chunks)


def write_png(path: str | os.PathLike[str], image: Any) -> None:
    """Write an image as a PNG file, whole or not at all.

    Raises:
        ShapeError, NonFiniteError: as in `png_bytes`.
        ConfigError: no path.
        DataError: the file cannot be written.
    """
    replace_file(checked_path(path, "the path of an image", error=ConfigError), png_bytes(image))


def grid(rows: Sequence[Sequence[Any]] | Tensor, *, gap: int = 2, scale: int = 1, background: float = 1.0) -> Tensor:
    """Images of one size in rows, (3, H, W) float32 in [0, 1].

    Args:
        rows: R rows of C images (3, S, S), or (R, C, 3, S, S). None, and what a short row lacks, stays empty.
        gap: pixels between images, after scaling.
        scale: each pixel becomes scale x scale.
        background: grey value in [0, 1].

    Raises:
        ShapeError: no image at all, images of different sizes, or as in `png_bytes`.
        NonFiniteError: as in `png_bytes`.
        ConfigError: an option is out of range.
    """
    check_integer("gap", gap, low=0)
    check_integer("scale", scale, low=1)
    check_number("background", background, "a number in [0, 1]", lambda x: 0 <= x <= 1)
    if isinstance(rows, Tensor | np.ndarray) and rows.ndim != 5:
        raise ShapeError(f"a grid is of (R, C, 3, S, S) or lists of images, got {tuple(rows.shape)}; see `strip`")
    cells = {
        (i, j): _checked(image, f"the image in row {i}, column {j}")
        for i, row in enumerate(rows)
        for j, image in enumerate(row)
        if image is not None
    }
    if not cells:
        raise ShapeError("a grid needs at least one image")
    (start, first), *others = cells.items()
    for (i, j), image in others:
        if image.shape != first.shape:
            raise ShapeError(
                f"the image in row {i}, column {j} is {tuple(image.shape)}, that in row {start[0]}, column "
                f"{start[1]} {tuple(first.shape)}; a grid is of images of one size (see `resize`)"
            )
    height, width = first.shape[1] * scale, first.shape[2] * scale
    columns = max(len(row) for row in rows)
    out = torch.full(
        (3, len(rows) * (height + gap) - gap, columns * (width + gap) - gap), float(background), dtype=torch.float32
    )
    for (i, j), image in cells.items():
        values = image.float() / 255 if image.dtype == torch.uint8 else image
        top, left = i * (height + gap), j * (width + gap)
        large = values.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
        out[:, top : top + height, left : left + width] = large
    return out


def image_row(images: Sequence[Any] | Tensor, *, gap: int = 2, scale: int = 1, background: float = 1.0) -> Tensor:
    """(T, 3, S, S) images side by side; options and errors as in `grid`."""
    if isinstance(images, Tensor | np.ndarray) and images.ndim != 4:
        raise ShapeError(f"a strip is of (T, 3, S, S) images, got {tuple(images.shape)}")
    return grid([list(images)], gap=gap, scale=scale, background=background)


def resize(images: Any, size: int) -> Tensor:
    """(N, 3, S, S) float in [0, 1] -> (N, 3, size, size) float32.

    The mean of blocks of pixels where size divides S, else bilinear with antialias; without a change of size as it is.

    Raises:
        ShapeError: not (N, 3, S, S) in [0, 1].
        NonFiniteError: an image holds NaN or infinity.
        ConfigError: size is no integer of at least 1.
    """
    check_integer("size", size, low=1)
    x = check_images(images)
    if x.shape[-1] % size == 0:
        return torch.nn.functional.avg_pool2d(x, x.shape[-1] // size).clamp(0, 1)
    return resized(x, size)


def read_thumbnails(store: EmbeddingStore, modality: str, rows: Sequence[int] | NDArray[np.int64], size: int) -> Tensor:
    """The images of items on white, (N, 3, size, size) float32 in [0, 1], from the store's asset `thumbnails.zip`.

    Args:
        modality: whose `<modality>/<row>.webp` (or .png, .jpg).
        rows: N rows of the store.
        size: pixels a side; a whole fraction of the image's own is the mean of blocks. Images that are not square
            are centred on a white square.

    Raises:
        DataError: the store has no thumbnails, or not of this modality and row, or one is damaged.
        ShapeError: rows are not integers (N,).
        ConfigError: size is no integer of at least 1.
        MissingDependencyError: Pillow is not installed.
    """
    check_integer("size", size, low=1)
    numbers = np.asarray(rows)
    if numbers.ndim != 1 or (numbers.dtype.kind not in "iu" and len(numbers)):
        raise ShapeError(
            f"rows are {numbers.dtype} of shape {numbers.shape}; expected integers (N,), rows of the store"
        )
    source = f"{THUMBNAILS} of {store.name!r}"
    if THUMBNAILS not in store.assets:
        raise DataError(f"{store.name!r} has no asset {THUMBNAILS}; write the store with it, or give the images")
    try:
        pil: Any = import_module("PIL.Image")
    except ImportError:
        raise MissingDependencyError("reading thumbnails needs Pillow: pip install 'unialign[images]'") from None
    out = torch.empty(len(numbers), 3, size, size, dtype=torch.float32)
    try:
        archive = zipfile.ZipFile(io.BytesIO(store.asset(THUMBNAILS)))
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError) as error:
        raise DataError(f"{source} is no zip archive ({error}); write the store again") from None
    with archive:
        images = [info for info in archive.infolist() if info.filename.rpartition(".")[2] in _KINDS]
        files = {info.filename.rpartition(".")[0]: info for info in images}
        for i, row in enumerate(numbers.tolist()):
            file = files.get(f"{modality}/{row}")
            if file is None:
                known = sorted({name.partition("/")[0] for name in files if "/" in name})
                raise DataError(
                    f"{source} has no image of {modality!r} for row {row}; it has some of "
                    f"{', '.join(map(repr, known)) or 'nothing'}, and the store has {store.items} rows"
                )
            out[i] = _read(pil, archive, file, source, size)
    return out


def _read(pil: Any, archive: zipfile.ZipFile, file: zipfile.ZipInfo, source: str, size: int) -> Tensor:
    what = f"{file.filename} in {source}"
    if file.file_size > _LARGEST_FILE:
        raise DataError(f"{what} has {file.file_size} bytes; expected a thumbnail of at most {_LARGEST_FILE}")
    try:
        # Of the formats that thumbnails have, since Pillow runs other programs for some that it knows.
        with pil.open(io.BytesIO(archive.read(file)), formats=("PNG", "JPEG", "WEBP")) as opened:
            if max(opened.size) > _MOST_SIDE:
                raise ValueError(f"it is {opened.size[0]} x {opened.size[1]} pixels, expected at most {_MOST_SIDE}")
            image = opened.convert("RGBA")
    except Exception as error:  # a damaged archive or image: the decoders raise anything
        raise DataError(f"{what} cannot be read ({error}); write the store again") from None
    side = max(image.size)
    white = pil.new("RGBA", (side, side), "white")
    white.alpha_composite(image, ((side - image.size[0]) // 2, (side - image.size[1]) // 2))
    small = white.convert("RGB")
    if side != size:
        small = small.resize((size, size), pil.Resampling.BOX if side % size == 0 else pil.Resampling.BICUBIC)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1).float() / 255


def _checked(image: Any, what: str) -> Tensor:
    """(3, H, W) uint8, or float32 in [0, 1], on the CPU."""
    x = as_dense(image, what, "(3, H, W)")
    if x.ndim != 3 or x.shape[0] != 3 or 0 in x.shape:
        raise ShapeError(f"{what} has shape {tuple(x.shape)}; expected (3, H, W)")
    x = x.detach().cpu()
    if x.dtype == torch.uint8:
        return x
    if not x.is_floating_point():
        raise ShapeError(f"{what} has dtype {x.dtype}; expected uint8, or float in [0, 1]")
    x = x.float()
    low, high = float(x.min()), float(x.max())
    if not (low >= 0 and high <= 1):
        raise NonFiniteError(f"{what} holds numbers from {low:g} to {high:g}; expected [0, 1] (scale or clamp them)")
    return x


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
