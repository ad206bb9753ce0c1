"""Prepare each frame of a video as an image."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.encoders._encoder import Prepare
from unialign.media import Video

__all__ = ["EachFrame"]


@dataclass(frozen=True)
class EachFrame:
    """Apply `prepare` to each frame of a video. If `count` is given and the video has a different number of frames, the
    middle frames of `count` runs of equal length are used.
    """

    prepare: Prepare
    count: int | None = None

    def __call__(self, video: Video) -> dict[str, NDArray[Any]]:
        frames = video.frames
        if self.count is not None and len(frames) != self.count:
            frames = frames[(2 * np.arange(self.count) + 1) * len(frames) // (2 * self.count)]
        prepared = [self.prepare(frame) for frame in frames]
        return {name: np.stack([frame[name] for frame in prepared]) for name in prepared[0]}
