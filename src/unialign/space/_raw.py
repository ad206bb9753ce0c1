"""Compute the features of raw media with the encoders of a space.

Shapes: `B` rows, `W` dimension of the features.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from unialign._checks import one_line
from unialign.batch import row_mask
from unialign.config import OnError
from unialign.encoders import BATCH_SIZE, Encoder, Prepared, encode_prepared
from unialign.errors import ConfigError, MediaError, UniAlignError
from unialign.media import Media, as_media
from unialign.space._validation import check_names

if TYPE_CHECKING:
    from unialign.space._space import Space

# Number of batches that are prepared at once; texts are small, and are sorted by length within them.
_BATCHES, _BATCHES_OF_TEXT = 1, 64


@dataclass(frozen=True)
class BrokenInput:
    """An input that could not be encoded.

    Attributes:
        modality: name of the modality.
        row: row of the input, from 0.
        code: one of `unialign.media.CODES`, or `zero-features` if all features are 0.
        detail: what was found.
    """

    modality: str
    row: int
    code: str
    detail: str


def encoded_inputs(
    space: "Space", inputs: Any, present: Any, *, on_error: OnError
) -> tuple[Any, Any, tuple[BrokenInput, ...]]:
    """Replace raw media by their features; return features and masks for `check_batch`, and the broken rows."""
    if not isinstance(inputs, Mapping) or not isinstance(present, Mapping | None):
        return inputs, present, ()
    check_names(inputs, space.dims, "inputs")
    features, masks, broken = dict(inputs), dict(present or {}), list[BrokenInput]()
    for name, x in inputs.items():
        values = raw_values(space, name, x)
        if values is not None:
            features[name], masks[name], found = encode_raw(space, name, values, masks.get(name), on_error=on_error)
            broken += found
    return features, masks, tuple(broken)


def raw_values(space: "Space", name: str, x: Any) -> list[Any] | None:
    """Return the values of raw media, or None if x is an array of features."""
    if isinstance(x, str | bytes | os.PathLike | Mapping) or hasattr(x, "convert"):
        raise ConfigError(f"{name!r} must be a list with one value per row, got a single {type(x).__name__}; pass [x]")
    values = x if isinstance(x, list | tuple) else None
    if isinstance(x, np.ndarray) and x.ndim == 1 and x.dtype.kind in "OUS":
        values = x.tolist()
    if values is None or name in space.encoders:
        return None if values is None else list(values)
    if any(value is None or isinstance(value, str | bytes | os.PathLike | Mapping) for value in values) or any(
        hasattr(value, "convert") for value in values
    ):
        raise ConfigError(
            f"{name!r} has raw media, but the space has no encoder of {name!r}; pass encoders={{{name!r}: encoder}} to "
            f"Space.from_pretrained or to with_encoders, or pass features (B, {space.dims[name]})"
        )
    return None


def encode_raw(
    space: "Space", name: str, values: Sequence[Any], present: Any, *, on_error: OnError
) -> tuple[Tensor, Tensor, list[BrokenInput]]:
    """Return features (B, W), the mask (B,) of present rows, and the broken rows."""
    mask_B = torch.ones(len(values), dtype=torch.bool)
    if present is not None:
        mask_B &= row_mask(present, f"present[{name!r}]", len(values)).cpu()
    encoder = space._loaded_encoders.get(name, space.encoders[name], space._like().device)
    features_BW, broken = torch.zeros(len(values), space.dims[name]), list[BrokenInput]()
    size = int(space.encoders[name].get("batch_size", BATCH_SIZE))
    window = size * (_BATCHES_OF_TEXT if encoder.media == "text" else _BATCHES)
    for start in range(0, len(values), window):
        rows = range(start, min(start + window, len(values)))
        prepared: list[Prepared | None] = []
        for row in rows:
            try:
                # Decoded media can be large, so only the prepared arrays of a batch are kept.
                prepared.append(_prepared(encoder, name, row, values[row]) if mask_B[row] else None)
            except MediaError as error:
                if on_error == "raise":
                    raise
                broken.append(BrokenInput(name, row, error.code, error.detail))
                prepared.append(None)
        part_bW = encode_prepared(encoder, prepared, batch_size=size)
        for row, value, features_W in zip(rows, prepared, part_bW, strict=True):
            if value is not None and not features_W.any():
                found = BrokenInput(name, row, "zero-features", "all features are 0, so the row has no direction")
                if on_error == "raise":
                    raise MediaError(found.code, found.detail, f"{name!r} row {row}")
                broken.append(found)
            mask_B[row] &= bool(value is not None and features_W.any())
        features_BW[start : start + len(rows)] = part_bW
    return features_BW, mask_B, broken


def _prepared(encoder: Encoder, name: str, row: int, value: Any) -> Prepared | None:
    try:
        media = as_media(value, encoder.media, decoding=encoder.decoding)
        return None if media is None else _arrays(encoder, media)
    except MediaError as error:
        where = f"{name!r} row {row}" + (f", {error.where}" if error.where else "")
        raise MediaError(error.code, error.detail, where) from None
    except ConfigError as error:
        raise ConfigError(f"{name!r} row {row}: {error}") from error.__cause__


def _arrays(encoder: Encoder, media: Media) -> Prepared:
    try:
        return encoder.prepare(media)
    except UniAlignError:
        raise
    except Exception as error:  # prepare may be user code
        raise ConfigError(
            f"the encoder {encoder!r} cannot prepare the value ({type(error).__name__}: {one_line(error)}); its "
            f"function prepare must accept decoded media of kind {encoder.media!r}"
        ) from error
