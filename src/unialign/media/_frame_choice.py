"""Choose frames of a video: divide it into segments of equal length, and use one frame of each."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["chosen_frames"]


def chosen_frames(count: int, wanted: int | None, seed: int | None) -> NDArray[np.int64]:
    """Return the indices of the chosen frames. Without a seed, frame (n + 1) // 2 - 1 of each segment of n frames is
    used, as in the evaluation of VAST and GRAM. A video with fewer frames repeats its last frame.
    """
    if wanted is None:
        return np.arange(count)
    padded = np.minimum(np.arange(max(count, wanted)), count - 1)
    runs = np.array_split(padded, wanted)
    if seed is None:
        return np.array([run[(len(run) + 1) // 2 - 1] for run in runs], np.int64)
    random = np.random.default_rng(seed)
    return np.array([run[random.integers(len(run))] for run in runs], np.int64)
