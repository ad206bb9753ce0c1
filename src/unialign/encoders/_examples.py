"""Fixed synthetic media, the inputs of the witness."""

from typing import Any

import numpy as np

from unialign.encoders._seeded import seeded_uniform
from unialign.media import Audio, Decoding, Kind, Video

__all__ = ["example_media"]

_TEXTS = ("A red kite flies over the calm sea at night.", "two dogs", "Ünïcode, 3.14 & 日本語!")
_RATE, _SECONDS, _FRAMES = 16000, 2, 4


def example_media(media: Kind, decoding: Decoding, dim: int) -> list[Any]:
    """Return example media; `dim` is the length of vectors if `decoding.dim` is None."""
    if media == "text":
        return list(_TEXTS)
    if media == "image":
        return [_picture(0), _picture(1)]
    if media == "video":
        return [Video(np.stack([_picture(place) for place in range(decoding.frames or _FRAMES)]))]
    if media == "audio":
        return [_chirp(decoding.rate or _RATE, min(decoding.seconds or _SECONDS, _SECONDS))]
    vector = 4 * seeded_uniform((decoding.dim or dim,), seed=11)
    return [vector, np.abs(vector[::-1])]


def _picture(number: int, height: int = 96, width: int = 128) -> Any:
    """Return an image of a gradient with a bright disk and noise."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    ramp = np.stack([x / width, y / height, 1 - x / width], -1) * 160
    disk = ((x - 40 - 8 * number) ** 2 + (y - 48) ** 2 < 24**2)[..., None] * np.array([80, 20, 60], np.float32)
    noise = 30 * seeded_uniform((height, width, 3), seed=number)
    return np.clip(ramp + disk + noise + 30, 0, 255).astype(np.uint8)


def _chirp(rate: int, seconds: float) -> Audio:
    """Return a rising tone with a harmonic and noise."""
    time = np.arange(int(seconds * rate)) / rate
    phase = 2 * np.pi * (200 * time + 300 * time**2)
    tone = 0.4 * np.sin(phase) + 0.2 * np.sin(3 * phase)
    return Audio((tone + 0.05 * seeded_uniform((len(time),), seed=3)).astype(np.float32), rate)
