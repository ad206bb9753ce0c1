"""Random numbers that are equal in every version of NumPy and torch, from the raw bits of a bit generator."""

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["seeded_signs", "seeded_uniform"]


def seeded_uniform(shape: tuple[int, ...], *, seed: int) -> NDArray[np.float32]:
    """Draw uniform numbers in [-1, 1)."""
    raw = np.random.PCG64(seed).random_raw(math.prod(shape))
    numbers = (np.asarray(raw, np.uint64) >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-23) - np.float32(1)
    return numbers.reshape(shape)


def seeded_signs(shape: tuple[int, ...], *, seed: int) -> NDArray[np.float32]:
    """Draw random signs, -1 or 1."""
    return np.where(seeded_uniform(shape, seed=seed) < 0, np.float32(-1), np.float32(1))
