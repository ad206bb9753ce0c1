"""Log-mel features of sounds.

Shapes: `L` frames, `B` bands.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.encoders._waveform import MelBands, Spectrogram
from unialign.media import Audio

__all__ = ["LogMelFrames", "LogMelStatistics"]

# Power of the quantization noise of 16 bits, roughly; it replaces smaller powers.
_FLOOR = 1e-8


@dataclass(frozen=True)
class LogMelFrames:
    """Map a sound to the logarithm of its power in mel bands: `frames` (L, B).

    Attributes:
        rate: samples per second.
        window, hop: samples of a frame and between the starts of frames.
        bands: number of bands B.
    """

    rate: int = 16000
    window: int = 512
    hop: int = 160
    bands: int = 64

    def __call__(self, sound: Audio) -> dict[str, NDArray[Any]]:
        power = Spectrogram(self.window, self.hop, self.window)(sound.samples)
        bands = MelBands(self.rate, self.window, self.bands, 0, self.rate / 2)(power)
        return {"frames": np.log(np.maximum(bands / self.window, _FLOOR)).astype(np.float32)}

    def to_json(self) -> dict[str, Any]:
        return {"type": "log-mel", **asdict(self), "scale": "htk", "floor": _FLOOR}


@dataclass(frozen=True)
class LogMelStatistics:
    """Map a sound to the mean and the standard deviation over time of its log-mel bands, (2 B,)."""

    frames: LogMelFrames = LogMelFrames()

    def __call__(self, sound: Audio) -> dict[str, NDArray[Any]]:
        frames = self.frames(sound)["frames"].astype(np.float64)
        return {"features": np.concatenate([frames.mean(0), frames.std(0)]).astype(np.float32)}

    def to_json(self) -> dict[str, Any]:
        return {"type": "log-mel-statistics", "frames": self.frames.to_json()}
