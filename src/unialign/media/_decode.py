"""Decode bytes or values to NumPy arrays."""

import errno
import io
from collections.abc import Sequence
from typing import BinaryIO

from unialign._checks import check_choice
from unialign.errors import ConfigError, MediaError
from unialign.media._array_cell import whole_vector
from unialign.media._audio import decode_audio
from unialign.media._declared_size import check_declared_size
from unialign.media._decoding import Decoding
from unialign.media._image import decode_image
from unialign.media._kinds import KINDS, Kind, Media
from unialign.media._limits import MediaLimits
from unialign.media._span import Span
from unialign.media._text import decode_text, text_of
from unialign.media._vector import as_vector
from unialign.media._video import decode_video

__all__ = ["decode", "decode_stream", "decode_value"]


def decode(
    data: bytes | str | Sequence[float],
    kind: Kind,
    *,
    limits: MediaLimits | None = None,
    decoding: Decoding | None = None,
    name: str = "",
) -> Media | None:
    """Decode an encoded file in memory, a text or a vector.

    Args:
        data: bytes of a file; for the kind `text` also a string, for the kind `array` also a sequence of numbers.
        kind: kind of media.
        limits: limits on the size. Default: `MediaLimits()`.
        decoding: options of decoding. Default: `Decoding()`.
        name: name of the data, for messages.

    Returns:
        See `load_cell`.

    Raises:
        MediaError: the data is broken; the error has a code.
        ConfigError: the kind is unknown, or the data has the wrong type.
        OSError: there is not enough memory.
        MissingDependencyError: an optional package is not installed.
    """
    check_choice("kind", kind, KINDS)
    limits, decoding = limits or MediaLimits(), decoding or Decoding()
    try:
        if isinstance(data, bytes | bytearray | memoryview):
            return decode_stream(io.BytesIO(data), memoryview(data).nbytes, kind, limits, decoding)
        return decode_value(data, kind, limits, decoding)
    except MediaError as error:
        raise MediaError(error.code, error.detail, name) from None


def decode_stream(
    stream: BinaryIO, size: int, kind: Kind, limits: MediaLimits, decoding: Decoding, span: Span = None
) -> Media | None:
    if not size:
        raise MediaError("empty", "there is no content")
    if size > limits.bytes:
        raise MediaError("too-large", f"{size:,} bytes, expected at most {limits.bytes:,}")
    try:
        if kind == "image":
            return _image(stream, size, limits, decoding)
        if kind == "text":
            return decode_text(stream, size, limits)
        if kind == "audio":
            return decode_audio(stream, size, limits, decoding, span)
        if kind == "video":
            return decode_video(stream, size, limits, decoding, span)
        return as_vector(whole_vector(stream, size, limits), decoding)
    except MemoryError as error:
        # The limits bound the memory that data can request, so the cause is a lack of memory of the machine.
        raise OSError(errno.ENOMEM, f"not enough memory to decode ({error})") from None


def _image(stream: BinaryIO, size: int, limits: MediaLimits, decoding: Decoding) -> Media:
    try:
        return decode_image(stream, limits, decoding)
    except MediaError as error:
        if error.code == "undecodable":
            # Pillow does not report that a WebP file is truncated.
            check_declared_size(stream, size)
        raise


def decode_value(value: object, kind: Kind, limits: MediaLimits, decoding: Decoding) -> Media | None:
    if kind == "text" and isinstance(value, str):
        return text_of(value, limits)
    if kind == "array" and not isinstance(value, str):
        return as_vector(value, decoding)
    raise ConfigError(f"kind {kind!r} cannot be decoded from a value of type {type(value).__name__}")
