"""The largest media that are decoded."""

from dataclasses import dataclass

__all__ = ["MediaLimits"]


@dataclass(frozen=True, kw_only=True)
class MediaLimits:
    """Limits on the size of media; larger ones are broken cells.

    Args:
        bytes: size of a file, member or value. Above it, the code is `too-large`.
        pixels: width times height of an image or of a video frame. Above it, the code is `too-many-pixels`. The default
            is the value above which Pillow warns.
        samples: samples of a sound after rate conversion. Above it, the code is `too-long`. A `Decoding` with `seconds`
            never reads more than that duration.
        characters: characters of a text. Above it, the code is `too-long`.
        seconds: time to decode one cell, in seconds. It is applied by the process that starts the decoding processes;
            functions of this package do not measure time.
    """

    bytes: int = 1 << 30
    pixels: int = 89_478_485
    samples: int = 1 << 26
    characters: int = 1_000_000
    seconds: float = 60.0
