"""Decode the audio of videos, and audio formats that libsndfile does not support."""

from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from unialign._optional import optional_module
from unialign.errors import MediaError
from unialign.media._av_container import is_seekable, open_container
from unialign.media._decoding import Decoding
from unialign.media._kinds import Audio
from unialign.media._limits import MediaLimits
from unialign.media._resampling import collect_audio
from unialign.media._span import Span, shortest

__all__ = ["decode_av_audio"]

# Maximum number of undecodable packets before the first audio packet, such as the rest of a tag.
_MAX_LEADING_ERRORS = 16
# Decoding starts this many seconds early, since decoders need preceding packets to be exact.
_LEAD_SECONDS = 2.0


def decode_av_audio(stream: BinaryIO, limits: MediaLimits, decoding: Decoding, span: Span) -> Audio | None:
    """Decode audio; return None for a video without an audio stream."""
    with open_container(stream, limits) as container:
        if not container.streams.audio:
            if container.streams.video:
                return None
            raise MediaError("undecodable", "the file has neither audio nor video")
        track = container.streams.audio[0]
        start = span[0] if span else 0.0
        if start > _LEAD_SECONDS and is_seekable(container):
            container.seek(_origin(container) + int((start - _LEAD_SECONDS) * 1e6))
        rate = int(track.codec_context.sample_rate or 0)
        blocks = _blocks(container, track, rate, start)
        return collect_audio(blocks, rate, limits, decoding, shortest(span, decoding.seconds))


def _origin(container: Any) -> int:
    """Return the start time in microseconds."""
    return int(container.start_time or 0)


def _blocks(container: Any, track: Any, rate: int, start: float) -> Iterator[NDArray[Any]]:
    """Yield (frames, channels) float32 blocks, beginning `start` seconds after the start of the file."""
    av = optional_module("av", "decoding sounds", "video")
    convert, skipped = None, 0
    for frame in _frames(container, track):
        if convert is None:
            convert = av.AudioResampler(format="fltp", layout=frame.layout, rate=rate or frame.sample_rate)
            first = 0.0 if frame.time is None else float(frame.time) - _origin(container) / 1e6
            skipped = round((start - first) * rate) if start else 0
        for part in convert.resample(frame):
            block = np.asarray(part.to_ndarray(), np.float32).T
            if skipped < len(block):
                yield block[max(0, skipped) :]
            skipped -= min(skipped, len(block))
    if convert is not None:
        for part in convert.resample(None):
            yield np.asarray(part.to_ndarray(), np.float32).T[max(0, skipped) :]


def _frames(container: Any, track: Any) -> Iterator[Any]:
    av = optional_module("av", "decoding sounds", "video")
    started, errors = False, 0
    for packet in container.demux(track):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            errors += 1
            if started or errors > _MAX_LEADING_ERRORS:
                raise
            continue
        started = started or bool(frames)
        yield from frames
