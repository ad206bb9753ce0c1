"""Encode thumbnails of decoded media."""

import io
from typing import Any

from unialign._optional import optional_module
from unialign.media import Kind, Media

__all__ = ["has_thumbnail", "thumbnail"]

_QUALITY = 80


def has_thumbnail(media: Kind) -> bool:
    return media in ("image", "video")


def thumbnail(media: Media, kind: Kind, side: int | None) -> bytes | None:
    """Return a WebP file, for a video of its middle frame; None for other kinds of media."""
    if side is None or not has_thumbnail(kind):
        return None
    image_module = optional_module(
        "PIL.Image", "writing thumbnails", "media", hint=", or pass thumbnails=None (--thumbnails none)"
    )
    pixels: Any = media if kind == "image" else media.frames[len(media.frames) // 2]  # type: ignore[union-attr]
    image = image_module.fromarray(pixels)
    image.thumbnail((side, side))
    encoded = io.BytesIO()
    image.save(encoded, "webp", quality=_QUALITY, method=0)
    return encoded.getvalue()
