"""Hash the character n-grams of texts."""

import unicodedata
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["CharacterNgrams"]

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class CharacterNgrams:
    """Map a text to the buckets of its character n-grams, with weights of unit norm.

    Case and repeated whitespace are ignored. A space is added at both ends, so that n-grams mark the ends of words.
    `bits` is the base-2 logarithm of the number of buckets.
    """

    low: int = 2
    high: int = 5
    bits: int = 12
    characters: int = 10_000

    def __call__(self, text: str) -> dict[str, NDArray[Any]]:
        plain = " ".join(unicodedata.normalize("NFKC", text[: self.characters]).casefold().split())
        codes = np.frombuffer(f" {plain} ".encode("utf-32-le"), np.uint32).astype(np.uint64) + np.uint64(1)
        buckets = np.concatenate([self._buckets(codes, size) for size in range(self.low, self.high + 1)])
        found, counts = np.unique(buckets, return_counts=True)
        weights = 1 + np.log(counts)
        norm = np.sqrt(np.square(weights).sum())
        return {"buckets": found, "weights": (weights / max(norm, 1)).astype(np.float32)}

    def to_json(self) -> dict[str, Any]:
        return {"type": "character-ngrams", **asdict(self), "unicode": "NFKC casefold"}

    def _buckets(self, codes: NDArray[np.uint64], size: int) -> NDArray[np.int64]:
        windows = max(len(codes) - size + 1, 0)
        mixed = np.full(windows, size, np.uint64)
        for place in range(size):
            mixed = (mixed ^ codes[place : place + windows]) * _MULTIPLIER
            mixed ^= mixed >> np.uint64(29)
        return (mixed >> np.uint64(64 - self.bits)).astype(np.int64)
