"""Spectrograms of sounds.

Shapes: `T` samples, `L` frames, `F` frequencies, `B` bands.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["MelBands", "Spectrogram"]

Array: TypeAlias = NDArray[Any]


@dataclass(frozen=True)
class Spectrogram:
    """Compute the power (L, F) of overlapping frames of a sound (T,); F = fft / 2 + 1.

    Attributes:
        window: samples of a frame, to which a Hann window is applied.
        hop: samples between the starts of frames.
        fft: length of the Fourier transform, at least `window`.
        center: center frame i on sample i * hop; the ends of the sound are reflected. Otherwise, only frames within the
            sound are computed.
        periodic: whether the Hann window is periodic or symmetric.
        preemphasis: this fraction of the previous sample is subtracted from each sample of a frame.
        remove_mean: subtract the mean of each frame.
    """

    window: int
    hop: int
    fft: int
    center: bool = True
    periodic: bool = True
    preemphasis: float = 0.0
    remove_mean: bool = False

    def __call__(self, samples: NDArray[np.float32]) -> Array:
        half = self.window // 2
        # A frame needs a whole window of samples, and a reflection needs more samples than it adds.
        least = half + 1 if self.center else self.window
        padded = np.pad(samples.astype(np.float64), (0, max(least - len(samples), 0)))
        if self.center:
            padded = np.pad(padded, half, mode="reflect")
        frames = np.lib.stride_tricks.sliding_window_view(padded, self.window)[:: self.hop]
        if self.remove_mean:
            frames = frames - frames.mean(1, keepdims=True)
        if self.preemphasis:
            previous = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
            frames = frames - self.preemphasis * previous
        spectrum = np.fft.rfft(frames * _hann(self.window, self.periodic), n=self.fft, axis=1)
        return np.asarray(spectrum.real**2 + spectrum.imag**2)


@dataclass(frozen=True)
class MelBands:
    """Sum the power (L, F) of frequencies in triangular bands with equal distances on a mel scale: (L, B).

    Attributes:
        rate: samples per second.
        fft: length of the Fourier transform.
        bands: number of bands B.
        low, high: lowest and highest frequency in Hz.
        scale: formula of the mel scale: `htk` is 2595 log10(1 + f / 700); `slaney` is linear below 1 kHz.
        unit_area: each triangle has area 1 in Hz; otherwise, its maximum is 1.
        straight_in_mel: the sides of the triangles are straight as functions of the mel scale, not of the frequency.
    """

    rate: int
    fft: int
    bands: int
    low: float
    high: float
    scale: Literal["htk", "slaney"] = "htk"
    unit_area: bool = False
    straight_in_mel: bool = False

    def __call__(self, power: Array) -> Array:
        return np.asarray(power @ _triangles(self))


@cache
def _triangles(bands: MelBands) -> Array:
    low, high = _to_mel(np.array([bands.low, bands.high]), bands.scale).tolist()
    mels = np.linspace(low, high, bands.bands + 2)
    frequencies = np.fft.rfftfreq(bands.fft, 1 / bands.rate)
    edges = _from_mel(mels, bands.scale)
    if bands.straight_in_mel:
        places, ends = _to_mel(frequencies, bands.scale), mels
    else:
        places, ends = frequencies, edges
    width = np.diff(ends)
    rising, falling = (places[:, None] - ends[:-2]) / width[:-1], (ends[2:] - places[:, None]) / width[1:]
    triangles: Array = np.maximum(np.minimum(rising, falling), 0)
    return triangles * 2 / (edges[2:] - edges[:-2]) if bands.unit_area else triangles


# Slaney's scale is linear below 1 kHz, where 15 mels are reached, and logarithmic above.
_BREAK_HZ, _BREAK_MEL, _LOG_STEP = 1000.0, 15.0, np.log(6.4) / 27


def _to_mel(hertz: Array, scale: str) -> Array:
    if scale == "htk":
        return np.asarray(2595 * np.log10(1 + hertz / 700))
    logarithmic = _BREAK_MEL + np.log(np.maximum(hertz, _BREAK_HZ) / _BREAK_HZ) / _LOG_STEP
    return np.where(hertz < _BREAK_HZ, hertz * _BREAK_MEL / _BREAK_HZ, logarithmic)


def _from_mel(mels: Array, scale: str) -> Array:
    if scale == "htk":
        return np.asarray(700 * (10 ** (mels / 2595) - 1))
    logarithmic = _BREAK_HZ * np.exp(_LOG_STEP * (np.maximum(mels, _BREAK_MEL) - _BREAK_MEL))
    return np.where(mels < _BREAK_MEL, mels * _BREAK_HZ / _BREAK_MEL, logarithmic)


@cache
def _hann(window: int, periodic: bool) -> Array:
    steps = window if periodic else window - 1
    return np.asarray(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / steps))
