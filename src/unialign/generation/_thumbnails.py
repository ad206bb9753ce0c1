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

# Limit for damaged or malicious images, far above any thumbnail.
_MAX_SIDE = 4096


def read_thumbnails(store: EmbeddingStore, modality: str, rows: Sequence[int] | NDArray[np.int64], size: int) -> Tensor:
    """Read images of items from the store's asset `thumbnails.zip`, on white, as (N, 3, size, size) float32 in [0, 1].

    Args:
        modality: name of the folder in the archive, `<modality>/<row>.webp` (or .png, .jpg).
        rows: N rows of the store.
        size: side length in pixels; images are resized by block means if it divides their side length, else
            bicubically. Images that are not square are centered on a white square.

    Raises:
        DataError: the store has no thumbnails, or none of this modality and row, or one is damaged.
        ShapeError: rows are not integers (N,).
        ConfigError: size is not an integer of at least 1.
        MissingDependencyError: Pillow is not installed.
    """
    check_integer("size", size, low=1)
    rows_N = check_rows(rows)
    source = f"{THUMBNAILS} of {store.name!r}"
    if THUMBNAILS not in store.assets:
        raise DataError(f"{store.name!r} has no asset {THUMBNAILS}; write the store with it, or pass the images")
    try:
        pil: Any = import_module("PIL.Image")
    except ImportError:
        raise MissingDependencyError("reading thumbnails needs Pillow: pip install 'unialign[images]'") from None
    thumbnails = Thumbnails(store.asset(THUMBNAILS), source)
    out = torch.empty(len(rows_N), 3, size, size, dtype=torch.float32)
    for i, row in enumerate(rows_N.tolist()):
        file = thumbnails.read(modality, row)
        if file is None:
            known = ", ".join(map(repr, sorted(thumbnails.modalities))) or "nothing"
            raise DataError(
                f"{source} has no image of {modality!r} for row {row}; it has some of {known}, and the store has "
                f"{store.items} rows"
            )
        out[i] = _decode_square(pil, file[0], f"{modality}/{row}.{file[1]} in {source}", size)
    return out


def check_rows(rows: Any) -> NDArray[np.int64]:
    """Validate rows of a store, (N,) integers."""
    rows_N = np.asarray(rows)
    if rows_N.ndim != 1 or (rows_N.dtype.kind not in "iu" and len(rows_N)):
        raise ShapeError(f"rows are {rows_N.dtype} of shape {rows_N.shape}; expected integers (N,), rows of the store")
    return rows_N.astype(np.int64)


def _decode_square(pil: Any, data: bytes, what: str, size: int) -> Tensor:
    """Decode an image file and fit it into a white square, (3, size, size) float32 in [0, 1]."""
    try:
        # Explicit formats, since Pillow runs external programs for some others.
        with pil.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as opened:
            if max(opened.size) > _MAX_SIDE:
                raise ValueError(f"it is {opened.size[0]} x {opened.size[1]} pixels, expected at most {_MAX_SIDE}")
            image = opened.convert("RGBA")
    except Exception as error:  # damaged images can raise any exception
        raise DataError(f"{what} cannot be read ({error}); write the store again") from None
    side = max(image.size)
    white = pil.new("RGBA", (side, side), "white")
    white.alpha_composite(image, ((side - image.size[0]) // 2, (side - image.size[1]) // 2))
    small = white.convert("RGB")
    if side != size:
        small = small.resize((size, size), pil.Resampling.BOX if side % size == 0 else pil.Resampling.BICUBIC)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1).float() / 255
