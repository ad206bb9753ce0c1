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

# Number of sampled rows for each center of k-means, and minimum and usual maximum size of the sample.
_PER_CENTER, _SMALLEST, _LARGEST = 20, 2_000, 20_000
_ITERATIONS = 10
# Maximum number of clusters; a larger plan takes several rows of each cluster.
_CENTERS = 1_000
# Number of centers that are compared with the sample at once.
_BLOCK = 128


def plan(old: Any, n: int, *, seed: int = 0, modality: str | None = None) -> NDArray[np.int64]:
    """Return the (n,) ascending numbers of the rows to embed first: the rows nearest to the centers of n clusters.

    If n is above 1,000, there are 1,000 clusters, and several rows of each cluster are chosen. The chosen rows improve
    a map, but they are not a random sample, so the intervals of `bridge` require other pairs.

    Args:
        old: (N, D) embeddings by the old model, as an array, a memory map, a tensor, a file or a store.
        modality: name of the matrix to use, if the source contains several matrices.

    Raises:
        ConfigError: n is not from 1 to N.
    """
    return plan_rows(open_rows(old, "old", modality=modality), n, taken=np.empty(0, np.int64), seed=seed)


def plan_rows(old: RowSource, n: int, *, taken: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Return the rows nearest to the centers of clusters, which are computed from a random sample of the rows."""
    check_integer("n", n, low=1)
    check_seed(seed)
    free_N = np.ones(len(old), np.bool_)
    free_N[taken] = False
    free_rows = np.flatnonzero(free_N)
    if n > len(free_rows):
        raise ConfigError(f"n is {n:,}, but only {len(free_rows):,} rows are not embedded yet; choose a smaller n")
    clusters = min(n, _CENTERS)
    size = min(len(free_rows), max(clusters, _SMALLEST, min(_LARGEST, _PER_CENTER * clusters)))
    sample_S = np.sort(np.random.default_rng(seed).permutation(free_rows)[:size])
    rows_SD = old.take(sample_S)
    centers = kmeans(rows_SD, clusters, seed=seed, restarts=1, iterations=_ITERATIONS).centers.numpy()
    if clusters == n:
        return np.sort(sample_S[_nearest_distinct(rows_SD, centers)])
    return _nearest_of_each(old, centers, free_N, n)


def _nearest_distinct(rows_SD: NDArray[np.float64], centers_nD: NDArray[np.float64]) -> NDArray[np.int64]:
    chosen = np.empty(len(centers_nD), np.int64)
    for start in range(0, len(centers_nD), _BLOCK):
        cosine_bS = centers_nD[start : start + _BLOCK] @ rows_SD.T
        cosine_bS[:, chosen[:start]] = -np.inf
        for i, cosine_S in enumerate(cosine_bS):
            row = int(np.argmax(cosine_S))
            chosen[start + i] = row
            cosine_bS[:, row] = -np.inf
    return chosen


def _nearest_of_each(
    old: RowSource, centers_cD: NDArray[np.float64], free_N: NDArray[np.bool_], n: int
) -> NDArray[np.int64]:
    """Return the nearest row of each cluster, then the second nearest row of each, and so on."""
    cluster_N, cosine_N = np.empty(len(old), np.int32), np.empty(len(old), np.float32)
    for rows, x_bD in old.blocks():
        cosine_bc = x_bD @ centers_cD.T
        cluster_N[rows], cosine_N[rows] = cosine_bc.argmax(1), cosine_bc.max(1)
    rows_F = np.flatnonzero(free_N)
    rows_F = rows_F[np.lexsort((-cosine_N[rows_F], cluster_N[rows_F]))]
    sorted_F = cluster_N[rows_F]
    rank_F = np.arange(len(rows_F)) - np.searchsorted(sorted_F, sorted_F)
    return np.sort(rows_F[np.argsort(rank_F, kind="stable")[:n]])
