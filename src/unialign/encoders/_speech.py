"""Inputs of pretrained sound encoders.

Shapes: `L` frames, `B` bands, `K` windows.
"""

from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.encoders._waveform import MelBands, Spectrogram
from unialign.media import Audio

__all__ = ["AstFrames", "ClapFrames", "WhisperWindows"]


@dataclass(frozen=True)
class WhisperWindows:
    """Map a sound to the input of Whisper's encoder, in windows of equal length.

    The result has the log-mel frames `frames` (K, B, L) of K windows; the last window is filled with silence. `length`
    (K,) counts the outputs of the encoder in each window that belong to the sound; one output covers two frames.

    Attributes:
        window: seconds of a window.
        bands: number of bands B.
    """

    window: float
    bands: int = 80

    rate = 16000
    hop = 160

    @property
    def window_samples(self) -> int:
        # An even number of frames.
        return round(self.window * self.rate / (2 * self.hop)) * 2 * self.hop

    def __call__(self, sound: Audio) -> dict[str, NDArray[Any]]:
        size = self.window_samples
        samples = sound.samples
        count = max(ceil(len(samples) / size), 1)
        filled = np.pad(samples, (0, count * size - len(samples)))
        valid = [min(max(len(samples) - place * size, 1), size) for place in range(count)]
        return {
            "frames": np.stack([self._frames(filled[place * size : (place + 1) * size]) for place in range(count)]),
            "length": np.array([ceil(found / (2 * self.hop)) for found in valid], np.int64),
        }

    def to_json(self) -> dict[str, Any]:
        return {"type": "whisper-windows", **asdict(self), "rate": self.rate, "hop": self.hop}

    def _frames(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        power = Spectrogram(400, self.hop, 400)(samples)[:-1]
        bands = MelBands(self.rate, 400, self.bands, 0, 8000, scale="slaney", unit_area=True)(power)
        levels = np.log10(np.maximum(bands, 1e-10))
        return np.asarray(((np.maximum(levels, levels.max() - 8) + 4) / 4).T, np.float32)


@dataclass(frozen=True)
class AstFrames:
    """Map a sound to the input of the Audio Spectrogram Transformer: `frames` (L, B), the filter bank of Kaldi.

    Attributes:
        rate: samples per second.
        bands: number of bands B.
        length: number of frames L; longer sounds are cut, and zeros are added to shorter ones.
        mean, std: mean of the values of a data set, and half of their divisor; None: values are not normalized.
    """

    rate: int
    bands: int
    length: int
    mean: float | None
    std: float | None

    def __call__(self, sound: Audio) -> dict[str, NDArray[Any]]:
        spectrogram = Spectrogram(400, 160, 512, center=False, periodic=False, preemphasis=0.97, remove_mean=True)
        bands = MelBands(self.rate, 512, self.bands, 20, self.rate // 2, straight_in_mel=True)
        levels = np.log(np.maximum(bands(spectrogram(sound.samples)), np.finfo(np.float32).eps))[: self.length]
        levels = np.pad(levels, ((0, self.length - len(levels)), (0, 0))).astype(np.float32)
        if self.mean is not None and self.std is not None:
            levels = (levels - np.float32(self.mean)) / np.float32(2 * self.std)
        return {"frames": levels}

    def to_json(self) -> dict[str, Any]:
        return {"type": "ast-frames", **asdict(self)}


@dataclass(frozen=True)
class ClapFrames:
    """Map a sound to the input of CLAP's sound encoder: `frames` (1 or 4, L, B) in decibels.

    Only the first seconds of a long sound are used. The original implementation takes random parts instead.

    Attributes:
        rate: samples per second.
        samples: samples of the sound; shorter sounds are repeated and filled according to `padding`.
        window, hop: samples of a frame and between the starts of frames.
        bands: number of bands B.
        low, high: lowest and highest frequency in Hz.
        padding: `repeatpad` repeats the whole sound and adds silence, `repeat` repeats it, `pad` adds silence.
        fusion: whether the model was trained with feature fusion; it receives the frames four times.
    """

    rate: int
    samples: int
    window: int
    hop: int
    bands: int
    low: float
    high: float
    padding: str
    fusion: bool

    def __call__(self, sound: Audio) -> dict[str, NDArray[Any]]:
        samples = sound.samples[: self.samples]
        whole = self.samples // max(len(samples), 1)
        if self.padding == "repeat":
            samples = np.tile(samples, whole + 1)[: self.samples]
        elif self.padding == "repeatpad":
            samples = np.tile(samples, max(whole, 1))
        samples = np.pad(samples, (0, self.samples - len(samples)))
        scale: Any = "htk" if self.fusion else "slaney"
        bands = MelBands(
            self.rate, self.window, self.bands, self.low, self.high, scale=scale, unit_area=not self.fusion
        )
        power = bands(Spectrogram(self.window, self.hop, self.window)(samples))
        levels = (10 * np.log10(np.maximum(power, 1e-10))).astype(np.float32)
        return {"frames": np.repeat(levels[None], 4 if self.fusion else 1, axis=0)}

    def to_json(self) -> dict[str, Any]:
        return {"type": "clap-frames", **asdict(self)}
