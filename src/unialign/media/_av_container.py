"""Open containers with PyAV (FFmpeg)."""

import contextlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from unialign._checks import one_line
from unialign._optional import optional_module
from unialign.errors import MediaError, UniAlignError
from unialign.media._limits import MediaLimits

__all__ = ["declared_size", "is_seekable", "open_container"]

# Formats that FFmpeg may open. Others, such as playlists, could open other files, or render any text as a video.
_FORMATS = "mov,matroska,avi,mpegts,mpeg,flv,asf,ogg,gif,ivf,mp3,aac,flac,wav,w64,aiff,au,caf,amr,ac3,eac3,wv,tta"
# In other containers, seeking is approximate.
_EXACT = ("mov", "matroska")


@contextlib.contextmanager
def open_container(stream: BinaryIO, limits: MediaLimits) -> Iterator[Any]:
    """Open a container; errors of FFmpeg inside the context are raised as MediaError."""
    # `max_pixels` also applies to the first frames, which FFmpeg decodes to detect the format.
    with _opened(stream, {"max_pixels": str(limits.pixels), "fflags": "+genpts"}) as container:
        yield container


def declared_size(stream: BinaryIO) -> tuple[int, int]:
    """Return width and height of the first video according to the header; (0, 0) without a video."""
    stream.seek(0)
    with _opened(stream, {"probesize": "32", "analyzeduration": "0"}) as container:
        context = container.streams.video[0].codec_context
        return int(context.width), int(context.height)


def is_seekable(container: Any) -> bool:
    return str(container.format.name).startswith(_EXACT)


@contextlib.contextmanager
def _opened(stream: BinaryIO, options: dict[str, str]) -> Iterator[Any]:
    av = optional_module("av", "decoding video and some audio", "video")
    try:
        with av.open(
            stream, "r", options={"format_whitelist": _FORMATS, **options}, metadata_errors="ignore"
        ) as container:
            yield container
    except UniAlignError:
        raise
    except Exception as error:  # malicious input may raise any exception in the parser
        reason = getattr(error, "strerror", None) or error
        raise MediaError("undecodable", one_line(f"FFmpeg: {reason}")) from None
