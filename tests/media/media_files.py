"""Write small media files for tests."""

import io
import struct
import zlib
from typing import Any

import av
import numpy as np
import soundfile
from PIL import Image

__all__ = ["PIXELS", "TONE", "image_bytes", "png_chunk", "png_with", "sound_bytes", "video_bytes"]

# 24 x 32 pixels, with other values in each.
PIXELS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
# One second of 16-bit samples, as float32, at 16 kHz.
RATE = 16_000
TONE = (np.round(np.sin(np.arange(RATE) / 20) * 10_000) / 32_768).astype(np.float32)


def image_bytes(image: Any, suffix: str, **options: Any) -> bytes:
    """Return the file of an array or PIL image."""
    data = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(data, suffix, **options)
    return data.getvalue()


def sound_bytes(samples: Any, suffix: str = "WAV", rate: int = RATE, subtype: str | None = "PCM_16") -> bytes:
    """Return the file of (T,) or (T, channels) samples."""
    data = io.BytesIO()
    soundfile.write(data, samples, rate, format=suffix, subtype=subtype)
    return data.getvalue()


def video_bytes(
    levels: Any,
    container: str = "mp4",
    codec: str = "mpeg4",
    *,
    size: tuple[int, int] = (48, 64),
    rate: int = 10,
    tone: Any = None,
    options: dict[str, str] | None = None,
) -> bytes:
    """Return a video with one uniformly grey frame per level, and with a sound at 48 kHz if `tone` is given."""
    data = io.BytesIO()
    with av.open(data, "w", format=container) as file:
        track = file.add_stream(codec, rate=rate, options=options or {})
        track.height, track.width = size
        track.pix_fmt, track.gop_size = "yuv420p", 12
        sound = None if tone is None else file.add_stream("aac", rate=48_000, layout="mono")
        for level in levels:
            frame = av.VideoFrame.from_ndarray(np.full((*size, 3), level, np.uint8), format="rgb24")
            file.mux(track.encode(frame))
        file.mux(track.encode(None))
        if sound is not None:
            frame = av.AudioFrame.from_ndarray(np.asarray(tone, np.float32)[None], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 48_000, 0
            file.mux(sound.encode(frame))
            file.mux(sound.encode(None))
    return data.getvalue()


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_with(*chunks: bytes, width: int = 4, height: int = 4, pixels: bytes | None = None) -> bytes:
    """Return a grey 8-bit PNG of zeros with further chunks before the pixels."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    packed = png_chunk(b"IDAT", zlib.compress(bytes((width + 1) * height) if pixels is None else pixels))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + packed + png_chunk(b"IEND", b"")
