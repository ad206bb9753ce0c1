"""Hostile sounds."""

import struct

import numpy as np

from media.hostile_case import Cases
from media.media_files import RATE, TONE, sound_bytes
from unialign.media import Decoding

__all__ = ["CASES"]

CASES = Cases()


def _with_size(data: bytes, size: int, riff_size: int) -> bytes:
    """Return a WAV file with other sizes."""
    changed, place = bytearray(data), data.index(b"data") + 4
    changed[place : place + 4] = struct.pack("<I", size)
    changed[4:8] = struct.pack("<I", riff_size)
    return bytes(changed)


def _with_rate(data: bytes, rate: int) -> bytes:
    return data[:24] + struct.pack("<I", rate) + data[28:]


_wav = sound_bytes(TONE)
_mp3 = sound_bytes(TONE, "MP3", subtype=None)
_nan = TONE.copy()
_nan[123] = np.nan
_noise = np.random.default_rng(0).bytes(50_000)

CASES.add("text.wav", "audio", "undecodable", b"no sound\n" * 20)
CASES.add("empty.wav", "audio", "empty", b"")
CASES.add("no-samples.wav", "audio", "empty", sound_bytes(TONE[:0]))
CASES.add("truncated.wav", "audio", "truncated", _wav[:5000])
CASES.add("truncated-24.wav", "audio", "truncated", sound_bytes(TONE, subtype="PCM_24")[:-3])
CASES.add("stream-ff.wav", "audio", TONE, _with_size(_wav, 0xFFFFFFFF, 0xFFFFFFFF))
CASES.add("stream-0.wav", "audio", TONE, _with_size(_wav, 0, 0))
CASES.add("stream-header.wav", "audio", TONE, _with_size(_wav, 0, 36))
CASES.add("stream-7f.wav", "audio", TONE, _with_size(_wav, 0x7FFFF000, 0x7FFFF024))
CASES.add(
    "other-chunk.wav", "audio", "empty", _with_size(_wav[:44], 0, 52) + b"LIST" + struct.pack("<I", 8) + b"INFOabcd"
)
CASES.add("nan.wav", "audio", "not-finite", sound_bytes(_nan, subtype="FLOAT"))
CASES.add("stereo.wav", "audio", TONE / 2, sound_bytes(np.stack([TONE, 0 * TONE], 1)))
CASES.add(
    "rate-1.wav",
    "audio",
    np.zeros(4 * RATE, np.float32),
    _with_rate(sound_bytes(0 * TONE), 1),
    decoding=Decoding(rate=RATE, seconds=4),
)
CASES.add("rate-1-all.wav", "audio", "too-long", _with_rate(_wav, 1), decoding=Decoding(rate=48_000))
CASES.add("rate-0.wav", "audio", "undecodable", _with_rate(_wav, 0))
CASES.add("rate-2e9.wav", "audio", "undecodable", _with_rate(_wav, 2_000_000_000), decoding=Decoding(rate=RATE))
CASES.add("channels.wav", "audio", np.zeros(9, np.float32), sound_bytes(np.zeros((9, 1024), np.float32)))
CASES.add("silent.wav", "audio", 0 * TONE, sound_bytes(0 * TONE))
CASES.add("span.wav", "audio", TONE[4000:8000], _wav, {"path": "span.wav", "span": (0.25, 0.5)})
CASES.add("late-span.wav", "audio", "empty", _wav, {"path": "late-span.wav", "span": (1.5, 2.0)})
CASES.add("first.flac", "audio", TONE[:1600], sound_bytes(TONE, "FLAC"), decoding=Decoding(seconds=0.1))
CASES.add("truncated.flac", "audio", "undecodable", sound_bytes(TONE, "FLAC")[:-3000])
CASES.add("truncated.ogg", "audio", "truncated", sound_bytes(TONE, "OGG", subtype="VORBIS")[:-500])
CASES.add("truncated.aiff", "audio", "truncated", sound_bytes(TONE, "AIFF")[:-500])
CASES.add("truncated.au", "audio", "truncated", sound_bytes(TONE, "AU")[:-500])
CASES.add("truncated.w64", "audio", "truncated", sound_bytes(TONE, "W64")[:-500])
CASES.add("truncated.rf64", "audio", "truncated", sound_bytes(TONE, "RF64")[:-500])
CASES.add("truncated.mp3", "audio", "truncated", _mp3[: len(_mp3) // 2])
CASES.add("noise.mp3", "audio", "undecodable", _noise)
CASES.add("playlist.mp3", "audio", "undecodable", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n")
