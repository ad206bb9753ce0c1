"""Spectrograms of sounds. Does not import torch.

Shapes: `T` samples, `L` frames, `F` frequencies, `B` bands.
"""

from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["MelScale", "mel_filters", "power_spectrogram"]

MelScale = Literal["htk", "slaney"]


def power_spectrogram(samples: NDArray[np.float32], *, window: int, hop: int) -> NDArray[np.float32]:
    """Compute the power of overlapping frames (L, F) with a periodic Hann window, F = window / 2 + 1.

    Frame i is centered on sample i * hop; the ends are reflected. L = T // hop + 1.
    """
    half = window // 2
    # A reflection needs more samples than it adds.
    padded = np.pad(np.pad(samples, (0, max(half + 1 - len(samples), 0))), half, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    spectrum = np.fft.rfft(frames * _hann(window), axis=1)
    return np.asarray(spectrum.real**2 + spectrum.imag**2, np.float32)


@cache
def mel_filters(rate: int, *, window: int, bands: int, scale: MelScale) -> NDArray[np.float32]:
    """Return triangular filters (F, B) between 0 Hz and rate / 2, with equal distances on the mel scale.

    Args:
        scale: formula of the mel scale. With `slaney`, each filter has area 1 in Hz; with `htk`, its maximum is 1.
    """
    edges = _from_mel(np.linspace(0, _to_mel(rate / 2, scale), bands + 2), scale)
    frequencies = np.fft.rfftfreq(window, 1 / rate)
    rising = (frequencies[:, None] - edges[None, :-2]) / np.diff(edges)[None, :-1]
    falling = (edges[None, 2:] - frequencies[:, None]) / np.diff(edges)[None, 1:]
    filters = np.maximum(np.minimum(rising, falling), 0)
    if scale == "slaney":
        filters *= 2 / (edges[2:] - edges[:-2])
    filters = filters.astype(np.float32)
    filters.setflags(write=False)
    return filters


# The formulas of Slaney's Auditory Toolbox: linear below 1 kHz, logarithmic above.
_BREAK_HZ, _HZ_PER_MEL, _LOG_STEP = 1000.0, 200.0 / 3, np.log(6.4) / 27


def _to_mel(hertz: float, scale: MelScale) -> float:
    if scale == "htk":
        return float(2595 * np.log10(1 + hertz / 700))
    if hertz < _BREAK_HZ:
        return hertz / _HZ_PER_MEL
    return float(_BREAK_HZ / _HZ_PER_MEL + np.log(hertz / _BREAK_HZ) / _LOG_STEP)


def _from_mel(mels: NDArray[np.float64], scale: MelScale) -> NDArray[np.float64]:
    if scale == "htk":
        return np.asarray(700 * (10 ** (mels / 2595) - 1))
    start = _BREAK_HZ / _HZ_PER_MEL
    logarithmic = _BREAK_HZ * np.exp(_LOG_STEP * (np.maximum(mels, start) - start))
    return np.where(mels < start, mels * _HZ_PER_MEL, logarithmic)


@cache
def _hann(window: int) -> NDArray[np.float32]:
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)).astype(np.float32)
