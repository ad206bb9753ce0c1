"""Validate, resize, arrange and write images without optional dependencies.

Shapes: `N` images, `S` x `S` pixels of a square image, `H` x `W` pixels of any image, `R` rows and `C` columns of a
grid.
"""

import os
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unialign._checks import check_integer
from unialign.batch import as_dense
from unialign.errors import ConfigError, NonFiniteError, ShapeError, UniAlignError
from unialign.io import checked_path, replace_file


def check_images(
    images: Any,
    what: str = "images",
    *,
    square: bool = True,
    min_count: int = 1,
    range_error: type[UniAlignError] = ShapeError,
) -> Tensor:
    """Check that images are floats (N, 3, H, W) in [0, 1]; `range_error` is raised for other numbers."""
    expected = "(N, 3, S, S)" if square else "(N, 3, height, width)"
    x = as_dense(images, what, expected)
    wrong = x.ndim != 4 or len(x) < min_count or x.shape[1] != 3 or 0 in x.shape[2:]
    if wrong or (square and x.shape[2] != x.shape[3]):
        raise ShapeError(
            f"{what} have shape {tuple(x.shape)}; expected {expected} with all sizes at least {min_count or 1}"
        )
    if not x.is_floating_point():
        raise ShapeError(f"{what} have dtype {x.dtype}; expected floating numbers in [0, 1] (divide bytes by 255)")
    x = x.detach().float().cpu()
    if len(bad := (~torch.isfinite(x).flatten(1).all(1)).nonzero()):
        raise NonFiniteError(f"{what}, row {int(bad[0])}, contains NaN or infinity ({len(bad)} such images)")
    if len(bad := ((x < 0) | (x > 1)).flatten(1).any(1).nonzero()):
        row = int(bad[0])
        low, high = float(x[row].min()), float(x[row].max())
        raise range_error(
            f"{what}, row {row}, has values from {low:.4g} to {high:.4g}; expected [0, 1] (scale or clamp them)"
        )
    return x


def resize_bilinear(images: Tensor, size: int) -> Tensor:
    """Resize with antialiasing, without a copy if S equals size."""
    if images.shape[-1] == size:
        return images
    # Clamp, since the interpolation weights sum to 1 only up to rounding.
    return nn.functional.interpolate(
        images, size=(size, size), mode="bilinear", align_corners=False, antialias=True
    ).clamp(0, 1)


def resize(images: Any, size: int) -> Tensor:
    """Resize (N, 3, S, S) float images in [0, 1] to (N, 3, size, size) float32.

    Blocks of pixels are averaged if `size` divides S; otherwise, images are interpolated bilinearly with antialiasing.

    Raises:
        ShapeError: `images` is not a float array of shape (N, 3, S, S) in [0, 1].
        NonFiniteError: an image contains NaN or infinity.
        ConfigError: size is not an integer of at least 1.
    """
    check_integer("size", size, low=1)
    x = check_images(images)
    if x.shape[-1] % size == 0:
        return nn.functional.avg_pool2d(x, x.shape[-1] // size).clamp(0, 1)
    return resize_bilinear(x, size)


def png_bytes(image: Any) -> bytes:
    """Encode an image (3, H, W), uint8 or float in [0, 1], as an 8-bit RGB PNG file.

    Raises:
        ShapeError: the image is not of shape (3, H, W), or neither uint8 nor float.
        NonFiniteError: the image contains NaN or a number outside [0, 1].
    """
    pixels = (_check_image(image, "an image") * 255).round().to(torch.uint8).permute(1, 2, 0)
    height, width = pixels.shape[:2]
    # Each row of a PNG file begins with its filter type; 0 means no filter.
    lines = np.zeros((height, 1 + 3 * width), np.uint8)
    lines[:, 1:] = pixels.reshape(height, 3 * width).numpy()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8-bit RGB
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    out = b"\x89PNG\r\n\x1a\n"
    for kind, data in chunks:
        out += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return out


def write_png(path: str | os.PathLike[str], image: Any) -> None:
    """Write an image atomically to a PNG file.

    Raises:
        ShapeError, NonFiniteError: as in `png_bytes`.
        ConfigError: `path` is not a valid path.
        DataError: the file cannot be written.
    """
    replace_file(checked_path(path, "the path of an image", error=ConfigError), png_bytes(image))


def grid(rows: Sequence[Sequence[Any]] | Tensor, *, gap: int = 2, scale: int = 1) -> Tensor:
    """Arrange images of equal size in a grid on a white background, (3, H, W) float32 in [0, 1].

    Args:
        rows: R sequences of up to C images (3, S, S), or a tensor (R, C, 3, S, S). Cells are empty where an image is
            None or a row is short. Pass `[images]` for a single row.
        gap: number of pixels between images after scaling.
        scale: integer enlargement factor.

    Raises:
        ShapeError: there is no image, images differ in size, or as in `png_bytes`.
        NonFiniteError: as in `png_bytes`.
        ConfigError: an option is out of range.
    """
    check_integer("gap", gap, low=0)
    check_integer("scale", scale, low=1)
    if isinstance(rows, Tensor | np.ndarray) and rows.ndim != 5:
        raise ShapeError(f"grid expects (R, C, 3, S, S) or lists of images, got {tuple(rows.shape)}")
    cells = {
        (i, j): _check_image(image, f"the image in row {i}, column {j}")
        for i, row in enumerate(rows)
        for j, image in enumerate(row)
        if image is not None
    }
    if not cells:
        raise ShapeError("a grid needs at least one image")
    ((i0, j0), first), *others = cells.items()
    for (i, j), image in others:
        if image.shape != first.shape:
            sizes = f"{tuple(first.shape)} in row {i0}, column {j0} and {tuple(image.shape)} in row {i}, column {j}"
            raise ShapeError(f"images of a grid must have the same shape, got {sizes}; see `resize`")
    height, width = first.shape[1] * scale, first.shape[2] * scale
    shape = (len(rows), max(map(len, rows)), 3, height + gap, width + gap)
    tiles = torch.ones(shape, dtype=torch.float32)
    for (i, j), image in cells.items():
        tiles[i, j, :, :height, :width] = image.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    out = tiles.permute(2, 0, 3, 1, 4).reshape(3, shape[0] * shape[3], shape[1] * shape[4])
    return out[:, : out.shape[1] - gap, : out.shape[2] - gap].contiguous()


def _check_image(image: Any, what: str) -> Tensor:
    x = as_dense(image, what, "(3, H, W)")
    if x.ndim != 3 or x.shape[0] != 3 or 0 in x.shape:
        raise ShapeError(f"{what} has shape {tuple(x.shape)}; expected (3, H, W)")
    x = x.detach().cpu()
    if x.dtype == torch.uint8:
        return x.float() / 255
    if not x.is_floating_point():
        raise ShapeError(f"{what} has dtype {x.dtype}; expected uint8, or float in [0, 1]")
    x = x.float()
    low, high = float(x.min()), float(x.max())
    if not (low >= 0 and high <= 1):
        raise NonFiniteError(f"{what} has values from {low:g} to {high:g}; expected [0, 1] (scale or clamp them)")
    return x
