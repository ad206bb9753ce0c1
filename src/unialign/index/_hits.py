"""Describe the items that were found: cosines by modality, the matched modality, its probability.

Shapes: `h` hits of a part, `P` pairs of a hit and a vector of its query, `V` vectors, `D` dimension.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from unialign.index._calibration import Calibration
from unialign.index._catalog import ItemRecord
from unialign.index._found import Hit
from unialign.index._query_vectors import Vectors
from unialign.index._scan import Scan
from unialign.index._scores import exact_items, exact_row_scores, query_terms

# (score, number in the scan, record)
Ranked = tuple[float, int, ItemRecord]
# (modality -> cosine, matched modality, vector of the query, row score)
_Detail = tuple[dict[str, float], str, int, float]


def describe(
    scan: Scan, calibration: Calibration, vectors: Vectors, found: Sequence[Sequence[Ranked]]
) -> list[tuple[Hit, ...]]:
    """Return the hits of each query."""
    query_H = np.repeat(np.arange(len(found)), [len(rows) for rows in found])
    number_H = np.array([number for rows in found for _, number, _ in rows], np.int64)
    pulling = [_pulling(vectors, query) for query in range(len(found))]
    details: list[_Detail | None] = [None] * len(number_H)
    # The curves are for row scores, even if items are ordered by cosines.
    terms = query_terms(calibration, vectors, list(scan.terms)) if scan.best else scan.terms
    for entry, chosen, places in scan.split(number_H):
        distinct, which = np.unique(places, return_inverse=True)
        items = exact_items(entry.prepared, calibration, distinct)
        v_P = np.concatenate([pulling[query] for query in query_H[chosen]])
        ends_h = np.cumsum([len(pulling[query]) for query in query_H[chosen]])
        n_P = np.repeat(which, np.diff(ends_h, prepend=0))
        pairs = (torch.from_numpy(v_P), torch.from_numpy(n_P))
        rows = {name: s_P.numpy() for name, s_P in exact_row_scores(items, terms, vectors, *pairs).items()}
        cosines = {
            name: (vectors.q_QD[pairs[0]] * unit_nD[pairs[1]]).sum(1).numpy() for name, unit_nD in items.unit.items()
        }
        for hit, (start, end) in enumerate(zip([0, *ends_h[:-1].tolist()], ends_h.tolist(), strict=True)):
            details[chosen[hit]] = _detail(rows, cosines, v_P, start, end, by=cosines if scan.best else rows)
    shares = vectors.share_QM.tolist()
    flat = iter(details)
    return [tuple(_hit(score, record, next(flat), calibration, shares) for score, _, record in rows) for rows in found]


def _pulling(vectors: Vectors, query: int) -> NDArray[np.int64]:
    """Return the vectors of a query with positive weights; all if there are none."""
    of_query = vectors.of(query)
    positive = of_query[vectors.weight_Q[of_query] > 0]
    found: NDArray[np.int64] = (positive if len(positive) else of_query).numpy()
    return found


def _detail(
    rows: dict[str, NDArray[np.float64]],
    cosines: dict[str, NDArray[np.float64]],
    v_P: NDArray[np.int64],
    start: int,
    end: int,
    *,
    by: dict[str, NDArray[np.float64]],
) -> _Detail:
    """Describe a hit; the matched modality and vector are those with the largest number in `by`."""
    best: dict[str, int] = {}
    for name, s_P in rows.items():
        # Scores of absent rows are NaN, for all vectors.
        if s_P[start] == s_P[start]:
            best[name] = start if end == start + 1 else start + int(by[name][start:end].argmax())
    matched = max(best, key=lambda name: float(by[name][best[name]]))
    shown = {name: float(cosines[name][start:end].max()) for name in best}
    return shown, matched, int(v_P[best[matched]]), float(rows[matched][best[matched]])


def _hit(
    score: float, record: ItemRecord, detail: _Detail | None, calibration: Calibration, shares: list[list[float]]
) -> Hit:
    assert detail is not None
    cosines, matched, vector, row_score = detail
    probability, quantile = calibration.judge(shares[vector], matched, row_score)
    missing = tuple(name for bit, name in enumerate(calibration.modalities) if not record.present >> bit & 1)
    return Hit(
        record.key,
        record.name,
        score,
        probability,
        quantile,
        matched,
        cosines,
        missing,
        record.label,
        record.metadata,
    )
