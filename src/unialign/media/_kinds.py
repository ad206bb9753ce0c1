"""Kinds of media, and the values that decoding returns."""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

__all__ = ["KINDS", "Audio", "Kind", "Media", "Video"]

Kind = Literal["image", "text", "audio", "video", "array"]

# All kinds of media.
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, eq=False)
class Audio:
    """Decoded audio.

    Attributes:
        samples: (T,) float32, the mean of the channels; full scale is 1.
        rate: samples per second.
    """

    samples: NDArray[np.float32]
    rate: int

    @property
    def seconds(self) -> float:
        """Return the duration in seconds."""
        return len(self.samples) / self.rate


@dataclass(frozen=True, eq=False)
class Video:
    """Frames that were selected from a video.

    Attributes:
        frames: (T, H, W, 3) uint8 RGB.
        times: (T,) float64, seconds from the start of the video; None for frames that were passed as an array.
        seconds: duration of the video or of the requested span; None for frames that were passed as an array.
    """

    frames: NDArray[np.uint8]
    times: NDArray[np.float64] | None = None
    seconds: float | None = None


# An image is a (H, W, 3) uint8 array in RGB, a text a string, and an array a (D,) float32 vector.
Media: TypeAlias = NDArray[Any] | Audio | Video | str
