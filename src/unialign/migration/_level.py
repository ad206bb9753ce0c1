"""Task scores of the old model and of the mapped index.

Shapes: `Q` queries, `q` queries of a block, `b` rows of a block, `k` results, `N` rows of the index, `n` pairs, `D`,
`E` dimensions of the old and new rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.errors import DataError, ShapeError
from unialign.migration._inputs import RowSource, as_array
from unialign.migration._maps import FOLDS, METHODS, Map

# Cut-off of the scores, and maximum number of pairs that are queries for label precision.
K, LABEL_QUERIES = 10, 500
# Number of queries that are compared with a block of rows at once.
_QUERIES = 256


@dataclass(frozen=True)
class Level:
    """Task scores in [0, 1]; a score is None if its data are missing.

    Attributes:
        task: name of the score, such as `recall@10 of known items`.
        old: score of the old model in the old index.
        mapped: score of the new queries in the mapped index.
        candidates: fraction of the known items that are among the first candidates of the mapped index, which is an
            upper bound of the recall after the candidates are ordered by the new model.
        queries: number of queries.
    """

    task: str
    old: float | None
    mapped: float
    candidates: float | None
    queries: int

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as a dict."""
        return {key: getattr(self, key) for key in ("task", "old", "mapped", "candidates", "queries")}


@dataclass(frozen=True)
class Tasks:
    labels: NDArray[Any] | None
    known: NDArray[np.int64] | None
    queries: NDArray[Any] | None
    old_queries: NDArray[Any] | None

    @classmethod
    def checked(
        cls, labels: Any, known: Any, queries: NDArray[Any] | None, old_queries: NDArray[Any] | None, *, items: int
    ) -> "Tasks":
        labels_N = None if labels is None else as_array(labels)
        if labels_N is not None and labels_N.shape != (items,):
            raise ShapeError(f"`labels` must have one entry for each of the {items} rows, got {labels_N.shape}")
        if known is None or queries is None:
            return cls(labels_N, None, queries, old_queries)
        known_Q, count = as_array(known), len(queries)
        if known_Q.shape != (count,) or known_Q.dtype.kind not in "iu":
            raise ShapeError(
                f"`known` must be one row number for each of the {count} queries, got shape {known_Q.shape}"
            )
        if ((known_Q < 0) | (known_Q >= items)).any():
            raise DataError(f"`known` must hold row numbers from 0 to {items - 1}")
        if old_queries is not None and len(old_queries) != count:
            raise ShapeError(f"got {count} queries and {len(old_queries)} old queries; expected the same queries")
        return cls(labels_N, known_Q.astype(np.int64), queries, old_queries)


class _Search:
    """Find the nearest rows block by block, without storing a mapped index; `found` is None for the old rows."""

    def __init__(
        self, queries_QD: NDArray[Any], found: Map | None, k: int, allowed_N: NDArray[np.bool_] | None = None
    ) -> None:
        self._queries_QD, self._map, self._allowed_N = queries_QD, found, allowed_N
        self._scores_Qk = np.full((len(queries_QD), k), -np.inf)
        self.rows_Qk = np.full((len(queries_QD), k), -1, np.int64)

    def add(self, rows: slice, x_bD: NDArray[Any]) -> None:
        numbers_b = np.arange(rows.start, rows.stop)
        if self._allowed_N is not None:
            kept_b = self._allowed_N[rows]
            numbers_b, x_bD = numbers_b[kept_b], x_bD[kept_b]
        # The rows of a mapped index are stored in float32.
        rows_bD = x_bD if self._map is None else self._map(x_bD).astype(np.float32).astype(np.float64)
        for start in range(0, len(self._queries_QD), _QUERIES):
            block = slice(start, start + _QUERIES)
            self._merge(block, numbers_b, self._queries_QD[block] @ rows_bD.T)

    def _merge(self, block: slice, numbers_b: NDArray[np.int64], scores_qb: NDArray[Any]) -> None:
        k = self._scores_Qk.shape[1]
        if scores_qb.shape[1] > k:
            best_qk = np.argpartition(-scores_qb, k - 1, axis=1)[:, :k]
            scores_qb, rows_qb = np.take_along_axis(scores_qb, best_qk, 1), numbers_b[best_qk]
        else:
            rows_qb = np.broadcast_to(numbers_b, scores_qb.shape)
        scores_qc = np.concatenate([self._scores_Qk[block], scores_qb], axis=1)
        rows_qc = np.concatenate([self.rows_Qk[block], rows_qb], axis=1)
        order_qk = np.lexsort((rows_qc, -scores_qc), axis=1)[:, :k]
        self._scores_Qk[block] = np.take_along_axis(scores_qc, order_qk, 1)
        self.rows_Qk[block] = np.take_along_axis(rows_qc, order_qk, 1)


def measure_levels(
    found: Map,
    index: RowSource,
    x_nD: NDArray[Any],
    y_nE: NDArray[Any],
    pairs_n: NDArray[np.int64],
    tasks: Tasks,
    *,
    candidates: int,
    seed: int,
) -> tuple[Level, ...]:
    scores: list[_LabelScore | _KnownScore] = []
    if tasks.labels is not None and (labels := _LabelScore.of(found, x_nD, y_nE, pairs_n, tasks.labels, seed)):
        scores.append(labels)
    if tasks.known is not None:
        scores.append(_KnownScore(found, tasks, min(candidates, len(index))))
    if scores:
        for rows, x_bD in index.blocks():
            for score in scores:
                for search in score.searches:
                    search.add(rows, x_bD)
    return tuple(score.level() for score in scores)


class _KnownScore:
    """Recall@10 of the known row of each query."""

    def __init__(self, found: Map, tasks: Tasks, candidates: int) -> None:
        assert tasks.queries is not None
        assert tasks.known is not None
        self._known_Q = tasks.known
        self.searches = [_Search(tasks.queries, found, candidates)]
        if tasks.old_queries is not None:
            self.searches.append(_Search(tasks.old_queries, None, min(K, candidates)))

    def level(self) -> Level:
        found = [search.rows_Qk == self._known_Q[:, None] for search in self.searches]
        old = float(found[1].any(1).mean()) if len(found) > 1 else None
        mapped, among = float(found[0][:, :K].any(1).mean()), float(found[0].any(1).mean())
        return Level(f"recall@{K} of known items", old, mapped, among, len(self._known_Q))


class _LabelScore:
    """Fraction of the first 10 labeled rows that have the label of the query.

    A map is more accurate for the pairs that it was fitted on, so the map for a query is fitted without the fold that
    contains the query.
    """

    def __init__(self, own_Q: NDArray[np.int64], labels_N: NDArray[Any], searches: "list[_Search]") -> None:
        self._own_Q, self._labels_N, self.searches = own_Q, labels_N, searches

    @classmethod
    def of(
        cls,
        found: Map,
        x_nD: NDArray[Any],
        y_nE: NDArray[Any],
        pairs_n: NDArray[np.int64],
        labels_N: NDArray[Any],
        seed: int,
    ) -> "_LabelScore | None":
        """Return the score; None without labeled pairs or with too few labeled rows."""
        labeled_N = labels_N >= 0 if labels_N.dtype.kind in "if" else np.ones(len(labels_N), np.bool_)
        searches, asked, missing = [], [], LABEL_QUERIES
        for fold_f in np.array_split(np.random.default_rng(seed).permutation(len(pairs_n)), FOLDS):
            asked_q = fold_f[labeled_N[pairs_n[fold_f]]][:missing]
            if len(asked_q):
                others = np.delete(np.arange(len(pairs_n)), fold_f)
                held_out = METHODS[found.method](x_nD[others], y_nE[others]).map
                searches.append(_Search(y_nE[asked_q], held_out, K + 1, labeled_N))
                asked.append(asked_q)
                missing -= len(asked_q)
        if not asked or labeled_N.sum() <= K:
            return None
        asked_Q = np.concatenate(asked)
        searches.append(_Search(x_nD[asked_Q], None, K + 1, labeled_N))
        return cls(pairs_n[asked_Q], labels_N, searches)

    def level(self) -> Level:
        *mapped, old = (search.rows_Qk for search in self.searches)
        scores = [self._precision(rows_Qk) for rows_Qk in (old, np.concatenate(mapped))]
        return Level(f"precision@{K} of labels", scores[0], scores[1], None, len(self._own_Q))

    def _precision(self, rows_Qk: NDArray[np.int64]) -> float:
        """Leave out the row of the query."""
        other = rows_Qk != self._own_Q[:, None]
        # If the row of the query is not among the first 11 rows, leave out the last of them.
        other[other.all(1), -1] = False
        same = (self._labels_N[rows_Qk] == self._labels_N[self._own_Q][:, None]) & other
        return float(same.sum(1).mean() / K)


def describe_level(level: Level) -> str:
    numbers: Mapping[str, float | None] = {
        "the old model": level.old,
        "the mapped index": level.mapped,
        "the candidates at best": level.candidates,
    }
    parts = [f"{100 * value:.1f} % by {name}" for name, value in numbers.items() if value is not None]
    return f"{level.task[0].upper()}{level.task[1:]}: {', '.join(parts)} ({level.queries:,} queries)."
