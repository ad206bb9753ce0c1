"""Decode texts: UTF-8 with or without a byte order mark."""

from typing import BinaryIO

from unialign._checks import has_surrogate
from unialign.errors import MediaError
from unialign.media._limits import MediaLimits

__all__ = ["decode_text", "text_of"]

_MARK = b"\xef\xbb\xbf"
_MAX_BYTES_PER_CHARACTER = 4


def decode_text(stream: BinaryIO, size: int, limits: MediaLimits) -> str | None:
    if size > limits.characters * _MAX_BYTES_PER_CHARACTER + len(_MARK):
        raise MediaError("too-long", f"{size:,} bytes contain more than {limits.characters:,} characters")
    data = stream.read()
    start = len(_MARK) if data.startswith(_MARK) else 0
    try:
        text = data[start:].decode("utf-8")
    except UnicodeDecodeError as error:
        place = start + error.start
        raise MediaError("bad-utf8", f"byte {data[place]:#04x} at offset {place} is not UTF-8; convert it") from None
    return text_of(text, limits)


def text_of(text: str, limits: MediaLimits) -> str | None:
    """Return the text; None if it is blank."""
    if has_surrogate(text):
        raise MediaError("bad-utf8", "the text has an unpaired surrogate, which UTF-8 cannot encode; remove it")
    if len(text) > limits.characters:
        raise MediaError("too-long", f"{len(text):,} characters, expected at most {limits.characters:,}")
    return text.strip() or None
