"""Hostile videos."""

import struct

import numpy as np

from media.hostile_case import ABSENT, Cases
from media.media_files import TONE, sound_bytes, video_bytes
from unialign.media import Decoding, MediaLimits

__all__ = ["CASES"]

CASES = Cases()
_noise = np.random.default_rng(0).bytes(50_000)
_wav = sound_bytes(TONE)


def _box(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", 8 + len(data)) + kind + data


_LEVELS = [0, 40, 80, 120, 160, 200]
_mp4 = video_bytes(_LEVELS)
_index = _mp4.index(b"moov") - 4
_grey = np.zeros((6, 48, 64, 3), np.uint8) + np.array(_LEVELS, np.uint8)[:, None, None, None]

CASES.add("clip.mp4", "video", _grey[[0, 2, 4]], _mp4, decoding=Decoding(frames=3), tolerance=6)
CASES.add("short.mp4", "video", _grey[[0, 1, 2, 3, 4, 5, 5, 5]], _mp4, decoding=Decoding(frames=8), tolerance=6)
CASES.add("span.mp4", "video", _grey[2:4], _mp4, {"path": "span.mp4", "span": (0.2, 0.4)}, tolerance=6)
CASES.add("late-span.mp4", "video", "empty", _mp4, {"path": "late-span.mp4", "span": (7.0, 8.0)})
CASES.add("no-index.mp4", "video", "undecodable", _mp4[:_index])
CASES.add("truncated.mp4", "video", "truncated", _mp4[: _index - 20])
CASES.add("truncated.mkv", "video", "truncated", video_bytes(_LEVELS, "matroska")[:-300])
CASES.add("truncated.avi", "video", "truncated", video_bytes(_LEVELS, "avi")[:-300])
CASES.add("index-first.mp4", "video", "truncated", video_bytes(_LEVELS, options={"movflags": "+faststart"})[:-20])
CASES.add("large.mp4", "video", "too-many-pixels", _mp4, limits=MediaLimits(pixels=48 * 63))
CASES.add("long.mp4", "video", "too-many-pixels", _mp4, limits=MediaLimits(bytes=48 * 64 * 3 * 5))
CASES.add("text.mp4", "video", "undecodable", b"no video\n" * 200)
CASES.add("noise.mp4", "video", "undecodable", _noise)
CASES.add(
    "playlist.mp4", "video", "undecodable", b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nclip.mp4\n#EXT-X-ENDLIST\n"
)
# FFmpeg knows this format, but it is not in the list of those that are read.
CASES.add("other.y4m", "video", "undecodable", b"YUV4MPEG2 W4 H4 F10:1 C420jpeg\n" + (b"FRAME\n" + bytes(24)) * 9)
CASES.add("concat.mp4", "video", "undecodable", b"ffconcat version 1.0\nfile clip.mp4\n")
CASES.add("sound.mp4", "video", "undecodable", _wav)
CASES.add("silent.mp4", "audio", ABSENT, _mp4)
CASES.add("boxes.mp4", "video", "undecodable", _box(b"ftyp", b"isom\0\0\0\0") + _box(b"moov", _box(b"trak", b"")) * 900)
