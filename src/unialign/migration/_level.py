"""Task scores of the old model and of the mapped index, from known answers or labels.

Shapes: `Q` queries, `N` rows of the index, `S` rows of a sample, `D` dimension of the old rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.errors import ConfigError, DataError, ShapeError
from unialign.metrics import knn
from unialign.migration._inputs import RowSource, checked_unit
from unialign.migration._maps import Map

# Number of results of a score, and of rows that query their own index for label precision.
K, LABEL_QUERIES = 10, 500


@dataclass(frozen=True)
class Level:
    """Task scores in [0, 1]; None if the data for a score are missing.

    Attributes:
        task: the score, such as `recall@10 of known items`.
        old: score of the old model in its own index.
        mapped: score of the new queries in the mapped index.
        candidates: share of the known items among the first candidates of the mapped index; the new model can order
            these first.
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
    """Data for task scores; see `bridge`. Queries are unit rows."""

    labels: Any
    known: Any
    queries: NDArray[Any] | None
    old_queries: NDArray[Any] | None


def measure_levels(
    found: Map, index: RowSource, y_nE: NDArray[Any], pairs_n: NDArray[np.int64], tasks: Tasks, *, candidates: int
) -> tuple[Level, ...]:
    """Score the old model and the mapped index, which is written to a temporary file since it may exceed memory."""
    if tasks.labels is None and tasks.known is None:
        return ()
    old, levels = index.load(), []
    with TemporaryFile() as file:
        mapped = np.memmap(file, np.float32, "w+", shape=(len(index), y_nE.shape[1]))
        for rows, x_bD in index.blocks():
            mapped[rows] = found(x_bD)
        if tasks.labels is not None:
            levels.append(label_level(mapped, old, y_nE, pairs_n, tasks.labels))
        if tasks.known is not None:
            levels.append(known_item_level(mapped, old, tasks, candidates=candidates))
        del mapped
    return tuple(levels)


def known_item_level(mapped: Any, old: Any, tasks: Tasks, *, candidates: int) -> Level:
    """Return recall@10 of one known row for each query, by the old model and in the mapped index.

    Args:
        mapped, old: (N, E) mapped rows and (N, D) old rows.
    """
    queries, old_queries = tasks.queries, tasks.old_queries
    assert queries is not None
    known_Q = np.asarray(tasks.known)
    count = len(queries)
    if known_Q.shape != (count,) or known_Q.dtype.kind not in "iu":
        raise ShapeError(f"`known` must be one row number for each of the {count} queries, got shape {known_Q.shape}")
    if ((known_Q < 0) | (known_Q >= len(mapped))).any():
        raise DataError(f"`known` must hold row numbers from 0 to {len(mapped) - 1}")
    if old_queries is not None and len(old_queries) != count:
        raise ShapeError(f"got {count} queries and {len(old_queries)} old queries; expected the same queries")
    rows = knn(queries, mapped, k=min(candidates, len(mapped))).rows.cpu().numpy()
    found_QC = rows == known_Q[:, None]
    old_score = None if old_queries is None else _recall(old_queries, old, known_Q)
    return Level(
        f"recall@{K} of known items",
        old_score,
        float(found_QC[:, :K].any(1).mean()),
        float(found_QC.any(1).mean()),
        count,
    )


def label_level(mapped: Any, old: Any, new_nE: NDArray[Any], pairs_n: NDArray[np.int64], labels: Any) -> Level:
    """Return the share of the first 10 rows with the label of the query; up to 500 of the pairs are the queries."""
    labels_N = np.asarray(labels)
    if labels_N.shape != (len(mapped),):
        raise ShapeError(f"`labels` must have one entry for each of the {len(mapped)} rows, got {labels_N.shape}")
    if len(mapped) <= K:
        raise ConfigError(f"label precision needs more than {K} rows, the index has {len(mapped)}")
    queries_n = pairs_n[:LABEL_QUERIES]
    old_rows = checked_unit(np.asarray(old[np.sort(queries_n)]), "old", np.sort(queries_n))
    old_rows = old_rows[np.argsort(np.argsort(queries_n))]
    scores = [
        _precision(rows, gallery, queries_n, labels_N)
        for rows, gallery in ((old_rows, old), (new_nE[:LABEL_QUERIES], mapped))
    ]
    return Level(f"precision@{K} of labels", scores[0], scores[1], None, len(queries_n))


def describe_level(level: Level) -> str:
    """Return a sentence with the scores."""
    numbers: Mapping[str, float | None] = {
        "the old model": level.old,
        "the mapped index": level.mapped,
        "the candidates at best": level.candidates,
    }
    parts = [f"{100 * value:.1f} % by {name}" for name, value in numbers.items() if value is not None]
    return f"{level.task[0].upper()}{level.task[1:]}: {', '.join(parts)} ({level.queries:,} queries)."


def _recall(queries: Any, gallery: Any, known_Q: NDArray[Any]) -> float:
    rows = knn(queries, gallery, k=min(K, len(gallery))).rows.cpu().numpy()
    return float((rows == known_Q[:, None]).any(1).mean())


def _precision(queries: Any, gallery: Any, own_n: NDArray[np.int64], labels_N: NDArray[Any]) -> float:
    """Return label precision without the query's own row."""
    rows = knn(queries, gallery, k=K + 1).rows.cpu().numpy()
    other = rows != own_n[:, None]
    # If the own row is not among the first 11, the last place is left out.
    other[other.all(1), -1] = False
    same = (labels_N[rows] == labels_N[own_n][:, None]) & other
    return float(same.sum(1).mean() / K)
