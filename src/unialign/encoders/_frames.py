"""Prepare each frame of a video as an image. Does not import torch."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.encoders._encoder import Prepare
from unialign.media import Video

__all__ = ["EachFrame"]


@dataclass(frozen=True)
class EachFrame:
    """Apply `prepare` to each of the T frames of a video and stack the arrays: the first axis has length T."""

    prepare: Prepare

    def __call__(self, video: Video) -> dict[str, NDArray[Any]]:
        prepared = [self.prepare(frame) for frame in video.frames]
        return {name: np.stack([frame[name] for frame in prepared]) for name in prepared[0]}
