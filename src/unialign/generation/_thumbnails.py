"""Read the thumbnails of a store's items as tensors.

Shapes: `N` images, `S` x `S` pixels of an image.
"""

import io
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign._checks import check_integer
from unialign.data import THUMBNAILS, EmbeddingStore, Thumbnails
from unialign.errors import DataError, MissingDependencyError, ShapeError

# Maximum side length of a thumbnail; larger images are rejected as damaged or malicious.
_MAX_SIDE = 4096


def read_thumbnails(store: EmbeddingStore, modality: str, rows: Sequence[int] | NDArray[np.int64], size: int) -> Tensor:
    """Read images from the store's asset `thumbnails.zip`; return (N, 3, size, size), float32 in [0, 1].

    Args:
        modality: folder in the archive, which contains `<modality>/<row>.webp` (or .png, .jpg).
        rows: row numbers of the store, of shape (N,).
        size: side length of the result in pixels. Images are centered on a white square. The square is resized by
            block means if `size` divides the side length of the square, else by bicubic interpolation.

    Raises:
        DataError: the store has no thumbnails, or a thumbnail is missing or damaged.
        ShapeError: rows are not integers of shape (N,).
        ConfigError: size is not an integer of at least 1.
        MissingDependencyError: Pillow is not installed.
    """
    check_integer("size", size, low=1)
    rows_N = check_rows(rows)
    source = f"{THUMBNAILS} of {store.name!r}"
    if THUMBNAILS not in store.assets:
        raise DataError(f"{store.name!r} has no asset {THUMBNAILS}; add it when writing the store, or pass the images")
    try:
        pil: Any = import_module("PIL.Image")
    except ImportError:
        raise MissingDependencyError("reading thumbnails needs Pillow: pip install 'unialign[images]'") from None
    out = torch.empty(len(rows_N), 3, size, size, dtype=torch.float32)
    with store.open_asset(THUMBNAILS) as archive:
        thumbnails = Thumbnails(archive, source)
        for i, row in enumerate(rows_N.tolist()):
            file = thumbnails.read(modality, row)
            if file is None:
                known = ", ".join(map(repr, sorted(thumbnails.modalities))) or "nothing"
                raise DataError(
                    f"{source} has no image of {modality!r} for row {row}; it has images of {known}, and the store "
                    f"has {store.items} rows"
                )
            out[i] = _decode_square(pil, file[0], f"{modality}/{row}.{file[1]} in {source}", size)
    return out


def check_rows(rows: Any) -> NDArray[np.int64]:
    rows_N = np.asarray(rows)
    if rows_N.ndim != 1 or (rows_N.dtype.kind not in "iu" and len(rows_N)):
        raise ShapeError(f"rows must be integers of shape (N,), got {rows_N.dtype} of shape {rows_N.shape}")
    return rows_N.astype(np.int64)


def _decode_square(pil: Any, data: bytes, what: str, size: int) -> Tensor:
    """Center the image on a white square."""
    try:
        # Restrict the formats, since Pillow runs external programs for some other formats.
        with pil.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as opened:
            if max(opened.size) > _MAX_SIDE:
                raise ValueError(
                    f"its size is {opened.size[0]} x {opened.size[1]} pixels, expected at most {_MAX_SIDE}"
                )
            image = opened.convert("RGBA")
    except Exception as error:  # A damaged image can raise any exception.
        raise DataError(f"{what} cannot be read ({error}); write the store again") from None
    side = max(image.size)
    white = pil.new("RGBA", (side, side), "white")
    white.alpha_composite(image, ((side - image.size[0]) // 2, (side - image.size[1]) // 2))
    small = white.convert("RGB")
    if side != size:
        small = small.resize((size, size), pil.Resampling.BOX if side % size == 0 else pil.Resampling.BICUBIC)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1).float() / 255
