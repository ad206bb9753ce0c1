"""Which items are looked at closely. Drawn before the rows are read, so that one pass is enough.

Shapes: `N` items, `n` sampled items, `M` modalities, `W` windows,
`L` rows of one.
"""

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from unialign.diagnostics._row_alignment import WINDOW
from unialign.diagnostics._sources import Material

__all__ = ["draw", "neighbours", "sample_size"]

# Cosines of all directions together: some ten seconds on two cores. Up to 6 modalities get 2,048 items, 24 get 493.
_CELLS = 2**27
# The interval of a recall is then at most 4.4 points wide.
_MOST = 2048
# Bytes that the sampled rows of all modalities may take, in float64.
_BYTES = 2**30
# So few common items that a pair's numbers would be noise: it gets more of them where there are more.
_LEAST = 512


def sample_size(material: Material, wanted: int | None) -> int:
    """Items to sample: what was asked for, or what a minute allows; never more than memory allows."""
    directions = len(material.modalities) * (len(material.modalities) - 1)
    size = wanted if wanted is not None else min(_MOST, int((_CELLS / max(1, directions)) ** 0.5))
    width = sum(modality.rows.shape[1] for modality in material.modalities.values())
    return max(1, min(size, material.items, _BYTES // (8 * width)))


def draw(material: Material, size: int, *, seed: int) -> NDArray[np.int64]:
    """(n,) ascending rows: `size` items at random among those with two modalities or more, and where presence is thin
    as many more as give every modality and every pair 512, if it has them."""
    rng = np.random.default_rng(seed)
    present_MN = np.stack([modality.present_N for modality in material.modalities.values()])
    pool = np.flatnonzero(present_MN.sum(0) >= min(2, len(present_MN)))
    if not len(pool):
        pool = np.flatnonzero(present_MN.any(0))
    chosen = np.sort(rng.permutation(pool)[:size])
    if present_MN.all() or not len(pool):
        return chosen.astype(np.int64)
    least = min(_LEAST, size)
    taken_N = np.zeros(material.items, dtype=np.bool_)
    taken_N[chosen] = True
    groups = [present_MN[m] for m in range(len(present_MN))]
    groups += [present_MN[a] & present_MN[b] for a, b in combinations(range(len(present_MN)), 2)]
    for group_N in groups:
        missing = least - int((group_N & taken_N).sum())
        if missing > 0:
            more = rng.permutation(np.flatnonzero(group_N & ~taken_N))[:missing]
            taken_N[more] = True
    return np.flatnonzero(taken_N).astype(np.int64)


def neighbours(material: Material, size: int) -> NDArray[np.int64]:
    """(W, L) stretches of neighbouring rows, about `size` rows in all: every row of few, evenly spread among many."""
    length = min(WINDOW, material.items)
    many = max(1, min(material.items, max(size, 8 * length)) // length)
    starts_W = np.linspace(0, material.items - length, many).round().astype(np.int64)
    if many * length + length > material.items:  # all rows fit: no gaps and no overlaps, a rest at the end left out
        starts_W = np.arange(many, dtype=np.int64) * length
    return starts_W[:, None] + np.arange(length)
