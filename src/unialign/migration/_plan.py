"""Choose the rows to embed first.

Shapes: `N` rows of the index, `S` rows of a sample, `n` chosen rows, `D` dimension.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign._checks import check_integer, check_seed
from unialign.errors import ConfigError
from unialign.metrics import kmeans
from unialign.migration._inputs import RowSource, open_rows

# k-means reads a random sample of this many rows for each center, from `_SMALLEST` to `_LARGEST` rows.
_PER_CENTER, _SMALLEST, _LARGEST = 20, 2_000, 20_000
_ITERATIONS = 10


def plan(old: Any, n: int, *, seed: int = 0, modality: str | None = None) -> NDArray[np.int64]:
    """Return the (n,) ascending numbers of the rows to embed first: the nearest to the centers of n clusters.

    Args:
        old: (N, D) rows of the old model: an array, a memory map, a tensor, a file or a store.
        modality: name of the matrix if the source has several.

    Raises:
        ConfigError: n is not from 1 to N.
    """
    return plan_rows(open_rows(old, "old", modality=modality), n, taken=np.empty(0, np.int64), seed=seed)


def plan_rows(old: RowSource, n: int, *, taken: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Return the (n,) ascending row numbers nearest to the centers of n clusters of the old rows.

    The clusters are found in a random sample of the rows. Rows in `taken` are left out.

    Raises:
        ConfigError: n is not from 1 to the number of remaining rows.
    """
    check_integer("n", n, low=1)
    check_seed(seed)
    free = np.ones(len(old), np.bool_)
    free[taken] = False
    free_rows = np.flatnonzero(free)
    if n > len(free_rows):
        raise ConfigError(f"n is {n:,}, but only {len(free_rows):,} rows are not embedded yet; choose a smaller n")
    size = min(len(free_rows), max(n, _SMALLEST, min(_LARGEST, _PER_CENTER * n)))
    sample_S = np.sort(np.random.default_rng(seed).permutation(free_rows)[:size])
    rows_SD = old.take(sample_S)
    centers = kmeans(rows_SD, n, seed=seed, restarts=1, iterations=_ITERATIONS).centers.numpy()
    return np.sort(sample_S[_nearest_distinct(rows_SD, centers)])


def _nearest_distinct(rows_SD: NDArray[np.float64], centers_nD: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return one row for each center, the nearest that no earlier center has taken."""
    cosine_nS = centers_nD @ rows_SD.T
    chosen = np.empty(len(centers_nD), np.int64)
    for i, cosine_S in enumerate(cosine_nS):
        chosen[i] = int(np.argmax(cosine_S))
        cosine_nS[:, chosen[i]] = -np.inf
    return chosen
