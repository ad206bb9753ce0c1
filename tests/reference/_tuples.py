"""Implement Triangle, Symile and PMRL, objectives on whole tuples.

Shapes: `M` modalities (m, n), `B` items (i, j), `D` dim. a is the anchor, tau is the temperature, and x and y are unit
rows of shape (D,).
"""

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from reference._core import symmetric_contrast
from reference._rows import Ids, Rows, mean, tuple_of

__all__ = ["cross_areas", "pmrl", "singular_values", "symile_all", "symile_sampled", "triangle"]


def _kept(ids: Ids, items: Sequence[int]) -> Sequence[int]:
    """Return the ids of `items`, or the items themselves if there are no ids."""
    return [i if ids is None else ids[i] for i in items]


def _complete(rows: Rows) -> list[int]:
    return [i for i in range(len(next(iter(rows.values())))) if len(tuple_of(rows, i)) == len(rows)]


def _triangle_square(t: Tensor, v: Tensor, a: Tensor) -> Tensor:
    u, w = t - v, v - a
    return (u * u).sum() * (w * w).sum() - (u * w).sum() ** 2


def cross_areas(
    rows: Rows, *, anchor: str, items: Sequence[int], form: str = "area", eps: float = 0.0
) -> list[list[Tensor]]:
    """Return the triangle areas of the anchor of item i (rows) with the two other vectors of item j (columns)."""
    v, a = (rows[m] for m in rows if m != anchor)
    table = []
    for i in items:
        row = []
        for j in items:
            t, x, y = rows[anchor][i], v[j], a[j]
            assert t is not None
            assert x is not None
            assert y is not None
            square = _triangle_square(t, x, y)
            root = square.clamp(min=0) + eps
            row.append(square / 2 if form == "squared" else (torch.sqrt(root) if root > 0 else root) / 2)
        table.append(row)
    return table


def triangle(
    rows: Rows, *, anchor: str, form: str, tau: float | Tensor, label_smoothing: float, eps: float, ids: Ids = None
) -> Tensor:
    """Return the contrast of areas over the complete items."""
    items = _complete(rows)
    if not items:
        return mean([])
    areas = cross_areas(rows, anchor=anchor, items=items, form=form, eps=eps)
    return symmetric_contrast([[-area / tau for area in row] for row in areas], _kept(ids, items), label_smoothing)


def _multilinear(vectors: Sequence[Tensor]) -> Tensor:
    """Return the multilinear inner product, the sum of the entries of the elementwise product."""
    result = torch.ones_like(vectors[0])
    for x in vectors:
        result = result * x
    return result.sum()


def _vectors(rows: Rows, items: Sequence[int]) -> list[list[Tensor]]:
    return [[x for x in (rows[m][i] for i in items) if x is not None] for m in rows]


def symile_sampled(
    rows: Rows, *, tau: float | Tensor, permutations: Sequence[Sequence[Sequence[int]]], ids: Ids = None
) -> Tensor:
    """Return the mean cross-entropy of true tuples against sampled tuples of items `permutations[r][m][j]`."""
    items = _complete(rows)
    vectors, kept = _vectors(rows, items), _kept(ids, items)
    losses = []
    for r in range(len(rows)):
        others = [m for m in range(len(rows)) if m != r]
        for i in range(len(items)):
            own = _multilinear([z[i] for z in vectors]) / tau
            keys = [own]
            for j in range(len(items)):
                sources = [permutations[r][m][j] for m in others]
                if j != i and any(kept[source] != kept[i] for source in sources):
                    members = [vectors[m][source] for m, source in zip(others, sources, strict=True)]
                    keys.append(_multilinear([vectors[r][i], *members]) / tau)
            losses.append(torch.logsumexp(torch.stack(keys), 0) - own)
    return mean(losses)


def symile_all(rows: Rows, *, tau: float | Tensor, ids: Ids = None) -> Tensor:
    """Return the mean over r of the cross-entropy of true tuples against all tuples of the other modalities."""
    items = _complete(rows)
    vectors, kept = _vectors(rows, items), _kept(ids, items)
    keys: dict[tuple[int, int], list[Tensor]] = {}
    for place in product(range(len(items)), repeat=len(rows)):
        if len({kept[i] for i in place}) == 1 and len(set(place)) > 1:
            continue
        logit = _multilinear([vectors[m][i] for m, i in enumerate(place)]) / tau
        for r, i in enumerate(place):
            keys.setdefault((r, i), []).append(logit)
    owns = [_multilinear([z[i] for z in vectors]) / tau for i in range(len(items))]
    return mean([torch.logsumexp(torch.stack(logits), 0) - owns[i] for (_, i), logits in keys.items()])


def _decomposition(vectors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the singular values and left singular vectors of the matrix with the vectors as columns."""
    left, sigma, _ = torch.linalg.svd(torch.stack(list(vectors), dim=1), full_matrices=False)
    return sigma, left


def singular_values(rows: Rows) -> list[Tensor]:
    """Return the singular values of the present vectors of each item."""
    return [_decomposition(tuple_of(rows, i))[0] for i in range(len(next(iter(rows.values()))))]


def _leading(sigma: Tensor, left: Tensor, vectors: Sequence[Tensor | None]) -> Tensor:
    """Return the unit vector in the leading left singular space that is closest to the mean of the tuple.

    If the mean is orthogonal to that space, a weighted mean with decreasing weights replaces it.
    """
    space = left[:, sigma**2 >= (1 - 1e-6) * sigma[0] ** 2]
    for weights in ([1.0] * len(vectors), [0.5**m for m in range(len(vectors))]):
        target = sum((w * x for w, x in zip(weights, vectors, strict=True) if x is not None), torch.zeros(()))
        coordinates = (space.mT @ target).detach()
        if coordinates.norm() >= 1e-6:
            break
    return space @ (coordinates / coordinates.norm())


def pmrl(rows: Rows, *, intra: float, inter: float, ids: Ids = None) -> Tensor:
    """Return the rank-one term plus the contrast of leading vectors, over items with at least two modalities."""
    items = [i for i in range(len(next(iter(rows.values())))) if len(tuple_of(rows, i)) >= 2]
    if not items:
        return mean([])
    ranks, directions = [], []
    for i in items:
        sigma, left = _decomposition(tuple_of(rows, i))
        ranks.append(torch.logsumexp(sigma / intra, 0) - sigma[0] / intra)
        directions.append(_leading(sigma, left, [rows[m][i] for m in rows]))
    logits = [[(u * v).sum() / inter for v in directions] for u in directions]
    return mean(ranks) + symmetric_contrast(logits, _kept(ids, items))
