"""Collect blocks of audio samples, and convert them to mono and to another rate."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign._optional import optional_module
from unialign.errors import MediaError
from unialign.media._decoding import MAX_RATE, Decoding
from unialign.media._kinds import Audio
from unialign.media._limits import MediaLimits

__all__ = ["collect_audio", "frames_within"]

Samples = NDArray[np.float32]

_MAX_PART = 1 << 20


def frames_within(rate: int, seconds: float | None) -> int | None:
    """Return the number of frames within a duration, at least 1; None for all frames."""
    return None if seconds is None else max(1, round(rate * seconds))


def collect_audio(
    blocks: Iterable[NDArray[Any]], rate: int, limits: MediaLimits, decoding: Decoding, seconds: float | None
) -> Audio:
    if not 1 <= rate <= MAX_RATE:
        raise MediaError("undecodable", f"a rate of {rate:,} samples per second, expected 1 to {MAX_RATE:,}")
    target = decoding.rate or rate
    # Limit the samples before the rate conversion, which may multiply their number.
    most = limits.samples * rate // target
    mono = _mono(_first_frames(blocks, frames_within(rate, seconds), most))
    parts = list(mono if target == rate else _resampled(mono, rate, target))
    samples_T = np.concatenate(parts) if parts else np.empty(0, np.float32)
    if not len(samples_T):
        raise MediaError("empty", "the audio has no samples")
    # At very low rates, a single frame can be longer than `seconds`.
    return Audio(samples_T[: frames_within(target, seconds)], target)


def _first_frames(blocks: Iterable[NDArray[Any]], count: int | None, most: int) -> Iterator[NDArray[Any]]:
    """Yield the first `count` frames; raise an error if more than `most` frames are needed."""
    total = 0
    for block in blocks:
        part = block if count is None else block[: count - total]
        total += len(part)
        if total > most:
            raise MediaError("too-long", f"more than {most:,} samples; limit the number of seconds to read")
        yield part
        if total == count:
            return


def _mono(blocks: Iterable[NDArray[Any]]) -> Iterator[Samples]:
    start = 0
    for block in blocks:
        mono_T: Samples = block.mean(axis=1, dtype=np.float32)
        if not np.isfinite(mono_T).all():
            place = start + int(np.argmin(np.isfinite(mono_T)))
            raise MediaError("not-finite", f"sample {place} is NaN or infinite")
        start += len(block)
        yield mono_T


def _resampled(mono: Iterable[Samples], rate: int, target: int) -> Iterator[Samples]:
    soxr = optional_module("soxr", "resampling audio", "media")
    stream, empty = soxr.ResampleStream(rate, target, 1, dtype="float32"), True
    # Resample in small steps, since at very low rates a few samples become many.
    step = max(1, _MAX_PART * rate // target)
    for block in mono:
        for start in range(0, len(block), step):
            empty = False
            yield stream.resample_chunk(block[start : start + step])
    if not empty:
        yield stream.resample_chunk(np.empty(0, np.float32), last=True)
