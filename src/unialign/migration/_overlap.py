"""Measure on the pairs how well mapped rows reproduce the ranking of the true new rows.

The overlap@k in a gallery of m rows is the fraction of the first k true rows that are also among the first k mapped
rows. The mapped row of each pair is predicted without this pair, so m pairs behave like a random gallery of m rows of
the index.

Shapes: `Q` queries, `n` pairs, `m` pairs of a gallery, `P` points.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Cut-offs of the measured points.
CUTOFFS = (1, 2, 3, 5, 7, 10, 15, 20, 30)
# Divisor of the gallery size n, and number of random galleries of this size.
_DRAWS = ((1, 1), (2, 4), (4, 8))
# Number of queries that are ranked at once.
_QUERIES = 256


@dataclass(frozen=True)
class OverlapCurve:
    """Overlaps of each query at several cut-offs and gallery sizes.

    Attributes:
        cutoffs, sizes: (P,) k and m of each point.
        overlap: (P, Q) overlap@k in a gallery of m rows.
        contained: (P, Q) fraction of the first k true rows among the first `width` k mapped rows.
    """

    cutoffs: NDArray[np.int64]
    sizes: NDArray[np.int64]
    overlap: Array
    contained: Array

    def at(self, k: int) -> float:
        point = (self.cutoffs == k) & (self.sizes == self.sizes.max())
        return float(self.overlap[point].mean())


def measure_overlap(true_Qn: Array, mapped_Qn: Array, *, width: int, seed: int) -> OverlapCurve:
    """Measure the overlap of true and mapped scores, which are -inf for the query itself."""
    pairs = true_Qn.shape[1]
    generator = np.random.default_rng(seed)
    points: list[tuple[int, int, Array, Array]] = []
    for divisor, draws in _DRAWS:
        size = pairs // divisor
        cutoffs = [k for k in CUTOFFS if k < size]
        found = np.zeros((2, len(cutoffs), len(true_Qn)))
        for _ in range(draws):
            chosen = generator.permutation(pairs)[:size] if divisor > 1 else np.arange(pairs)
            for start in range(0, len(true_Qn), _QUERIES):
                block = slice(start, start + _QUERIES)
                found[:, :, block] += _overlaps(true_Qn[block, chosen], mapped_Qn[block, chosen], cutoffs, width)
        points += [(k, size, found[0, i] / draws, found[1, i] / draws) for i, k in enumerate(cutoffs)]
    cutoffs_P, sizes_P, overlap, contained = zip(*points, strict=True)
    return OverlapCurve(np.array(cutoffs_P), np.array(sizes_P), np.stack(overlap), np.stack(contained))


def _overlaps(true_Qm: Array, mapped_Qm: Array, cutoffs: list[int], width: int) -> Array:
    """Return overlap and containment, (2, cutoffs, Q)."""
    size = mapped_Qm.shape[1]
    # Later places are not compared with any cut-off, so all of them have the rank `size`.
    order_QR = _first_columns(mapped_Qm, min(size, width * max(cutoffs)))
    rank_Qm = np.full(mapped_Qm.shape, size)
    np.put_along_axis(rank_Qm, order_QR, np.arange(order_QR.shape[1])[None], axis=1)
    first_QK = _first_columns(true_Qm, max(cutoffs))
    rank_QK = np.take_along_axis(rank_Qm, first_QK, axis=1)
    pairs = [((rank_QK[:, :k] < k).mean(1), (rank_QK[:, :k] < width * k).mean(1)) for k in cutoffs]
    return np.stack([np.stack(column) for column in zip(*pairs, strict=True)])


def _first_columns(scores_Qm: Array, count: int) -> NDArray[np.int64]:
    """Return the columns with the highest scores; equal scores are in the order of the columns."""
    size = scores_Qm.shape[1]
    if 4 * count > size:
        return np.asarray(np.argsort(-scores_Qm, axis=1, kind="stable")[:, :count])
    # In a large gallery, only the few rows that reach the last place are sorted.
    last_Q = np.partition(scores_Qm, size - count, axis=1)[:, size - count]
    found_QC = np.empty((len(scores_Qm), count), np.int64)
    for i, score_m in enumerate(scores_Qm):
        reached = np.flatnonzero(score_m >= last_Q[i])
        found_QC[i] = reached[np.argsort(-score_m[reached], kind="stable")[:count]]
    return found_QC
