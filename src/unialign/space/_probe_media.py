"""Synthetic media of every kind, to compare an exported encoder with the original."""

from typing import Any

import numpy as np

from unialign.encoders import Encoder
from unialign.media import Audio, Video

_WORDS = ("red", "kite", "sea", "night", "two", "dogs", "run", "over", "grass", "moon")
_RATE = 16000


def probe_media(encoder: Encoder, count: int, *, seed: int, longest: int) -> list[Any]:
    """Return decoded media; `longest` is the number of words of a text, or of quarters of a second of a sound."""
    rng = np.random.default_rng(seed)
    if encoder.media == "text":
        return [" ".join(rng.choice(_WORDS, longest - place % 2)) for place in range(count)]
    if encoder.media == "image":
        return [_image(rng) for _ in range(count)]
    if encoder.media == "video":
        frames = encoder.decoding.frames or 4
        return [Video(np.stack([_image(rng) for _ in range(frames)])) for _ in range(count)]
    if encoder.media == "audio":
        rate = encoder.decoding.rate or _RATE
        return [Audio(rng.uniform(-0.5, 0.5, rate * longest // 4).astype(np.float32), rate) for _ in range(count)]
    return list(rng.uniform(0.1, 2, (count, encoder.decoding.dim or encoder.dim)).astype(np.float32))


def _image(rng: np.random.Generator) -> Any:
    return rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
