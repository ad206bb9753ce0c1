"""Limits on the size of media that are decoded."""

import math
from dataclasses import dataclass

from unialign._checks import check_integer, check_number

__all__ = ["MediaLimits"]


@dataclass(frozen=True, kw_only=True)
class MediaLimits:
    """Limits on the size of media; cells with larger media are broken.

    Args:
        bytes: size of a file, member or value, and of the decoded frames of a video. Above it, the code is `too-large`,
            and `too-many-pixels` for frames.
        pixels: width times height of an image or of a video frame. Above it, the code is `too-many-pixels`. The default
            is the value above which Pillow warns; Pillow itself rejects images of more than twice its value.
        samples: number of audio samples after rate conversion. Above it, the code is `too-long`. A `Decoding` with
            `seconds` never reads more than that duration.
        characters: number of characters of a text. Above it, the code is `too-long`.
        seconds: time to decode one cell, in seconds. This limit is applied by the process that starts the decoding
            processes; functions of this package ignore it.

    Raises:
        ConfigError: a limit is not positive.
    """

    bytes: int = 1 << 30
    pixels: int = 89_478_485
    samples: int = 1 << 26
    characters: int = 1_000_000
    seconds: float = 60.0

    def __post_init__(self) -> None:
        for name in ("bytes", "pixels", "samples", "characters"):
            check_integer(name, getattr(self, name), low=1)
        check_number("seconds", self.seconds, "a positive number", lambda x: 0 < x < math.inf)
