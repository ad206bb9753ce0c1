"""Prepare decoded media, with errors that name the row."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from unialign._checks import one_line
from unialign.encoders._encoder import Encoder, Prepared
from unialign.errors import ConfigError, UniAlignError
from unialign.media import Audio, Kind, Video

__all__ = ["prepared_media"]

_TYPES: Mapping[Kind, tuple[type, ...]] = {
    "image": (np.ndarray,),
    "text": (str,),
    "audio": (Audio,),
    "video": (Video,),
    "array": (np.ndarray, list, tuple),
}
_EXPECTED: Mapping[Kind, str] = {
    "image": "a uint8 array (H, W, 3)",
    "text": "a string",
    "audio": "unialign.media.Audio",
    "video": "unialign.media.Video",
    "array": "a vector of numbers",
}


def prepared_media(encoder: Encoder, media: Any) -> list[Prepared | None]:
    if isinstance(media, str | bytes | Mapping) or not isinstance(media, Iterable):
        raise ConfigError(
            f"media must be a list with one decoded value per row, got a single {type(media).__name__}; pass [x]"
        )
    return [None if value is None else _prepared(encoder, value, row) for row, value in enumerate(media)]


def _prepared(encoder: Encoder, value: Any, row: int) -> Prepared:
    if not isinstance(value, _TYPES[encoder.media]):
        raise ConfigError(
            f"row {row} has the type {type(value).__name__}, but decoded media of kind {encoder.media!r} must be "
            f"{_EXPECTED[encoder.media]}; convert it with unialign.media.as_media"
        )
    try:
        return encoder.prepare(value)
    except UniAlignError:
        raise
    except Exception as error:  # prepare may be user code
        raise ConfigError(
            f"row {row} cannot be prepared for the encoder {encoder!r} ({type(error).__name__}: {one_line(error)}); "
            f"expected {_EXPECTED[encoder.media]}, as unialign.media.as_media returns"
        ) from error
