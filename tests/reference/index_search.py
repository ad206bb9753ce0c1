"""Search of an index in float64, item by item.

An item is a dict of modality -> (D,) row; absent modalities are missing from it. A correction has maps `weight` and
`bias` of modality -> array, and `reference`, modality -> (R, D) corrected rows.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

TIE = 1e-12


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x)


def correct(correction: Any, name: str, row: np.ndarray) -> np.ndarray | None:
    x = np.asarray(row, np.float64)
    if name in correction.weight:
        x = x @ np.asarray(correction.weight[name])
    if name in correction.bias:
        x = x + np.asarray(correction.bias[name])
    return x / np.linalg.norm(x) if np.linalg.norm(x) >= 1e-9 else None


def local(correction: Any, x: np.ndarray, target: str, *, same: bool) -> float:
    if target not in correction.reference:
        return 0.0
    cosines = sorted((np.asarray(correction.reference[target]) @ x).tolist(), reverse=True)
    k = min(10, max(1, len(cosines) // 10))
    if same and len(cosines) > k and cosines[0] > 1 - 1e-6:
        cosines = [*cosines[1:], -2.0]
    return float(np.mean(cosines[:k]))


def row_score(
    correction: Any, modalities: Sequence[str], q: np.ndarray, share: np.ndarray, name: str, g: np.ndarray
) -> float:
    score = float(q @ g)
    if correction.reference:
        score = 2 * score - local(correction, q, name, same=share[list(modalities).index(name)] > 0)
        for a, weight in zip(modalities, share, strict=True):
            # Stored as float32.
            score -= weight * float(np.float32(local(correction, g, a, same=a == name)))
    return score


def item_score(
    correction: Any,
    modalities: Sequence[str],
    q: np.ndarray,
    share: np.ndarray,
    item: Mapping[str, np.ndarray],
    targets: Sequence[str],
    *,
    best: bool,
) -> float | None:
    rows = {name: correct(correction, name, item[name]) for name in targets if name in item}
    rows = {name: g for name, g in rows.items() if g is not None}
    if not rows:
        return None
    if best:
        return max(float(q @ g) for g in rows.values())
    total = np.sum(list(rows.values()), axis=0)
    norm = float(np.linalg.norm(total))
    if len(rows) > 1 and norm < 1e-3:
        return None
    cosine = float(q @ total) / norm
    if not correction.reference:
        return cosine
    scores = [row_score(correction, modalities, q, share, name, g) for name, g in rows.items()]
    local = [2 * float(q @ g) - score for g, score in zip(rows.values(), scores, strict=True)]
    return 2 * cosine - sum(local) / len(local)


def fused(
    correction: Any, modalities: Sequence[str], parts: Sequence[tuple[float, Mapping[str, np.ndarray]]]
) -> tuple[np.ndarray, np.ndarray]:
    """Vector and shares of a query with `fuse="mean"`; parts are weights and rows."""
    total, share = np.zeros(len(next(iter(parts[0][1].values())))), np.zeros(len(modalities))
    weights = sum(abs(weight) for weight, _ in parts)
    for weight, rows in parts:
        total = total + weight * unit(np.sum([correct(correction, name, row) for name, row in rows.items()], axis=0))
        for name in rows:
            share[list(modalities).index(name)] += abs(weight) / weights / len(rows)
    return unit(total), share


def vectors(
    correction: Any, modalities: Sequence[str], parts: Sequence[tuple[float, Mapping[str, np.ndarray]]]
) -> list[tuple[float, np.ndarray, np.ndarray]]:
    """(weight, vector, shares) of each row of a query, for `max` and `rrf`."""
    found = []
    for weight, rows in parts:
        for name, row in rows.items():
            share = np.array([float(name == other) for other in modalities])
            found.append((weight / len(rows), correct(correction, name, row), share))
    return found


def ranked(scores: Mapping[Any, float]) -> list[tuple[Any, float]]:
    """Highest scores first; scores within 1e-12 of their neighbor are sorted by key."""
    order = sorted(scores.items(), key=lambda pair: -pair[1])
    groups: list[list[tuple[Any, float]]] = []
    for pair in order:
        if groups and groups[-1][-1][1] - pair[1] <= TIE:
            groups[-1].append(pair)
        else:
            groups.append([pair])
    return [pair for group in groups for pair in sorted(group, key=lambda pair: pair[0])]


def search(
    correction: Any,
    modalities: Sequence[str],
    items: Mapping[str, Mapping[str, np.ndarray]],
    parts: Sequence[tuple[float, Mapping[str, np.ndarray]]],
    *,
    target: Any = "any",
    unit: str = "item",
    fuse: str = "mean",
) -> list[tuple[tuple[str, str], float]]:
    """((key, modality), score) of all candidates, best first; the modality is empty for items."""
    targets = modalities if target in ("any", "best") else [target] if isinstance(target, str) else target
    groups = [("", targets)] if unit == "item" else [(name, [name]) for name in targets]
    if fuse == "mean":
        given = [(1.0, *fused(correction, modalities, parts))]
    else:
        given = vectors(correction, modalities, parts)
    lists: list[dict[tuple[str, str], float]] = []
    for _, q, share in given:
        scores = {}
        for key, item in items.items():
            for name, group in groups:
                score = item_score(correction, modalities, q, share, item, group, best=target == "best")
                if score is not None:
                    scores[key, name] = score
        lists.append(scores)
    weights = [weight for weight, _, _ in given]
    if fuse == "rrf":
        total: dict[tuple[str, str], float] = dict.fromkeys(lists[0], 0.0)
        scale = sum(map(abs, weights))
        for weight, scores in zip(weights, lists, strict=True):
            for key, score in scores.items():
                rank = 1 + sum(other > score + 1e-9 for other in scores.values())
                total[key] += weight / scale / (60 + rank)
        return ranked(total)
    combined = {}
    for key in lists[0]:
        pulled = [w * scores[key] for w, scores in zip(weights, lists, strict=True) if w > 0]
        pushed = [-w * scores[key] for w, scores in zip(weights, lists, strict=True) if w < 0]
        scale = max(map(abs, weights))
        combined[key] = (max(pulled, default=0.0) - max(pushed, default=0.0)) / scale
    return ranked(combined)
