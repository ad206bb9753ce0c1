"""Search a mapped index, and embed the first candidates with the new model on demand.

Shapes: `Q` queries, `C` candidates, `k` results, `N` rows of the index, `E` dimension of the new rows.
"""

from collections.abc import Callable, MutableMapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unialign._checks import check_integer
from unialign.errors import ConfigError, ShapeError
from unialign.metrics import knn
from unialign.migration._inputs import as_array, checked_unit

Embed = Callable[[NDArray[np.int64]], Any]
Cache = MutableMapping[int, NDArray[np.float32]]

# Number of rows that are embedded at once.
EMBED_ROWS = 4096


class SearchResult(NamedTuple):
    """Results of a search, best first.

    Attributes:
        scores: (Q, k) float64, cosines.
        rows: (Q, k) int64, row numbers in the index.
        embedded: number of rows that were embedded for this search; rows in the cache are not counted.
    """

    scores: NDArray[np.float64]
    rows: NDArray[np.int64]
    embedded: int


def search_mapped(
    queries: Any, mapped: Any, k: int, *, candidates: int, embed: Embed | None, cache: Cache | None
) -> SearchResult:
    check_integer("k", k, low=1)
    check_integer("candidates", candidates, low=1)
    if k > len(mapped):
        raise ConfigError(f"k is {k}, but the index has only {len(mapped)} rows; choose a smaller k")
    if embed is not None and candidates < k:
        raise ConfigError(f"candidates is {candidates}, expected at least k = {k}")
    if embed is None:
        scores, rows = knn(queries, mapped, k=k)
        return SearchResult(scores.detach().cpu().numpy(), rows.cpu().numpy(), 0)
    rows_QC = knn(queries, mapped, k=min(candidates, len(mapped))).rows.cpu().numpy()
    found: Cache = {} if cache is None else cache
    rows_n, dim = np.unique(rows_QC), np.shape(mapped)[1]
    _check_cached(rows_n, dim, found)
    embedded = _embed_missing(rows_n, dim, embed, found)
    return _ordered(checked_unit(as_array(queries), "queries"), rows_QC, found, k, embedded)


def _check_cached(rows_n: NDArray[np.int64], dim: int, cache: Cache) -> None:
    """Check before any row is embedded."""
    for row in rows_n.tolist():
        if row in cache and np.shape(cache[row]) != (dim,):
            raise ShapeError(
                f"`cache` holds a row of shape {tuple(np.shape(cache[row]))} for row {row}, expected {(dim,)}; use a "
                "new cache for each model"
            )


def _embed_missing(rows_n: NDArray[np.int64], dim: int, embed: Embed, cache: Cache) -> int:
    """Embed the rows that are not in the cache, which keeps finished blocks if a later block fails."""
    missing_n = np.array([row for row in rows_n.tolist() if row not in cache], np.int64)
    for start in range(0, len(missing_n), EMBED_ROWS):
        rows_b = missing_n[start : start + EMBED_ROWS]
        new_bE = as_array(embed(rows_b))
        if new_bE.shape != (len(rows_b), dim):
            raise ShapeError(
                f"`embed` returned shape {new_bE.shape} for {len(rows_b)} rows, expected {(len(rows_b), dim)}"
            )
        unit_bE = checked_unit(new_bE, "embed", rows_b).astype(np.float32)
        cache.update(zip(rows_b.tolist(), unit_bE, strict=True))
    return len(missing_n)


def _ordered(
    queries_QE: NDArray[np.float64], rows_QC: NDArray[np.int64], cache: Cache, k: int, embedded: int
) -> SearchResult:
    scores_Qk, rows_Qk = np.empty((len(rows_QC), k)), np.empty((len(rows_QC), k), np.int64)
    for i, rows_C in enumerate(rows_QC):
        score_C = np.stack([cache[row] for row in rows_C.tolist()]).astype(np.float64) @ queries_QE[i]
        best = np.lexsort((rows_C, -score_C))[:k]
        scores_Qk[i], rows_Qk[i] = score_C[best], rows_C[best]
    return SearchResult(scores_Qk, rows_Qk, embedded)
