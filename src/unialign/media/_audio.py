"""Decode audio with libsndfile, or with FFmpeg if libsndfile does not support the format."""

import io
from collections.abc import Iterator
from typing import Any, BinaryIO

from numpy.typing import NDArray

from unialign._checks import one_line
from unialign._optional import optional_module
from unialign.errors import MediaError, MissingDependencyError
from unialign.media._av_audio import decode_av_audio
from unialign.media._declared_size import check_declared_size, unfinished_size
from unialign.media._decoding import Decoding
from unialign.media._kinds import Audio
from unialign.media._limits import MediaLimits
from unialign.media._resampling import collect_audio
from unialign.media._span import Span, shortest

__all__ = ["decode_audio"]

_BLOCK_SAMPLES = 1 << 18
_UNKNOWN_SIZE = b"\xff\xff\xff\xff"


def decode_audio(
    stream: BinaryIO, size: int, limits: MediaLimits, decoding: Decoding, span: Span = None
) -> Audio | None:
    """Decode audio; return None for a video without an audio stream."""
    check_declared_size(stream, size)
    if _is_video_container(stream):
        return decode_av_audio(stream, limits, decoding, span)
    soundfile = optional_module("soundfile", "decoding sounds", "media")
    field = unfinished_size(stream, size)
    if field is not None:
        stream = io.BufferedReader(_Patched(stream, field, _UNKNOWN_SIZE))
    try:
        sound = soundfile.SoundFile(stream)
    except soundfile.SoundFileError as error:
        stream.seek(0)
        return _with_av(stream, limits, decoding, span, one_line(getattr(error, "error_string", error)))
    try:
        with sound:
            return _read(sound, limits, decoding, span)
    except soundfile.SoundFileError as error:
        raise MediaError("undecodable", one_line(getattr(error, "error_string", error))) from None


def _with_av(stream: BinaryIO, limits: MediaLimits, decoding: Decoding, span: Span, reason: str) -> Audio | None:
    try:
        return decode_av_audio(stream, limits, decoding, span)
    except MissingDependencyError:
        # Without PyAV, audio in other formats cannot be distinguished from files that are not audio.
        raise MediaError(
            "undecodable", f"libsndfile: {reason}; other formats are read after pip install 'unialign[video]'"
        ) from None


def _is_video_container(stream: BinaryIO) -> bool:
    head = stream.read(12)
    stream.seek(0)
    return head[4:8] == b"ftyp" or head[:4] == b"\x1a\x45\xdf\xa3" or (head[:4] == b"RIFF" and head[8:] == b"AVI ")


def _read(sound: Any, limits: MediaLimits, decoding: Decoding, span: Span) -> Audio:
    rate = int(sound.samplerate)
    if span is not None:
        first = round(span[0] * rate)
        if first >= sound.frames:
            raise MediaError("empty", f"the audio ends at {sound.frames / rate:g} s, before its span starts")
        sound.seek(first)
    return collect_audio(_blocks(sound), rate, limits, decoding, shortest(span, decoding.seconds))


def _blocks(sound: Any) -> Iterator[NDArray[Any]]:
    frames = max(1, _BLOCK_SAMPLES // sound.channels)
    place = sound.tell()
    while len(block := sound.read(frames, dtype="float32", always_2d=True)):
        place += len(block)
        yield block
    # For MP3, the number of frames is an estimate.
    if sound.format != "MP3" and place < sound.frames:
        raise MediaError("truncated", f"the audio ends after {place:,} of {sound.frames:,} samples")


class _Patched(io.RawIOBase):
    """Stream in which some bytes are replaced."""

    def __init__(self, stream: BinaryIO, place: int, data: bytes) -> None:
        super().__init__()
        self._stream, self._place, self._data = stream, place, data

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._stream.tell()

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def readinto(self, buffer: Any) -> int:
        start, view = self._stream.tell(), memoryview(buffer).cast("B")
        count = int(self._stream.readinto(buffer))  # type: ignore[attr-defined]
        low, high = max(start, self._place), min(start + count, self._place + len(self._data))
        if low < high:
            view[low - start : high - start] = self._data[low - self._place : high - self._place]
        return count
