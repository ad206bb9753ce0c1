"""Route `/compare`: compare two indexes of the same items.

Shapes: `n` items, `D` dimension of an index, `k` neighbors.
"""

import threading
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import torch
from fastapi import APIRouter
from numpy.typing import NDArray
from pydantic import Field, StrictInt

from unialign.index import Index
from unialign.serve._answers import found_to_json, json_response
from unialign.serve._errors import ApiError
from unialign.serve._map_points import calibration_name, corrected, principal_places
from unialign.serve._queries import encoded, make_query
from unialign.serve._schemas import Body, PartBody
from unialign.serve._service import Service

__all__ = ["procrustes", "routes"]

_ITEMS = 2_000
_MOST_SHOWN = 100
_RESAMPLES = 400
_KEPT = 4
_SEED = 0

_Name = Annotated[str, Field(min_length=1, max_length=200)]
Floats = NDArray[np.float64]


class CompareRequest(Body):
    """Body of `POST /compare`: two indexes, and optionally a query."""

    a: _Name
    b: _Name
    part: PartBody | None = None
    parts: Annotated[list[PartBody], Field(max_length=16)] | None = None
    k: Annotated[StrictInt, Field(ge=1, le=100)] = 10
    target: Annotated[str, Field(max_length=200)] = "any"
    maps: bool = True


def routes(service: Service) -> APIRouter:
    """Return the route of comparisons."""
    router = APIRouter()
    kept: dict[tuple[Any, ...], dict[str, Any]] = {}
    lock = threading.Lock()

    def compared(a: str, b: str) -> dict[str, Any]:
        one, other = service.index(a)[1], service.index(b)[1]
        state = (a, one.generation, calibration_name(one), b, other.generation, calibration_name(other))
        with lock:
            if state not in kept:
                while len(kept) >= _KEPT:
                    kept.pop(next(iter(kept)))
                with service.guards[a].reading(), service.guards[b].reading():
                    kept[state] = _compare(one, other)
            return kept[state]

    @router.post("/compare", summary="Compare two indexes of the same items")
    async def compare(body: CompareRequest) -> Any:
        for field in ("a", "b"):
            service.index(getattr(body, field))
        if body.a == body.b:
            raise ApiError(422, "same_index", "a and b are the same index; choose two", field="b")
        if body.part is not None and body.parts is not None:
            raise ApiError(422, "bad_request", "give part or parts, not both", field="part")
        contents = dict(await service.compute(compared, body.a, body.b))
        if not body.maps:
            del contents["points"]
        parts = body.parts if body.parts is not None else [body.part] if body.part is not None else []
        if parts:
            contents["answers"] = await service.compute(_answers, service, body, parts)
        return json_response(contents)

    return router


def _answers(service: Service, body: CompareRequest, parts: list[PartBody]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    # Compute ranks beyond those displayed, to show how far an item moved.
    depth = min(service.settings.depth, max(100, 10 * body.k))
    for side, name in (("a", body.a), ("b", body.b)):
        index = service.index(name)[1]
        if body.target not in ("any", "best", *index.modalities):
            raise ApiError(
                422, "unknown_modality", f"the index {name!r} has no modality {body.target!r}", field="target"
            )
        query = make_query(index, parts, {}, service.settings)
        with service.guards[name].reading():
            answer = index.search(encoded(index, [query]), k=depth, target=body.target)[0]
        found[side] = found_to_json(service, name, index, answer, 0)
    ranks = {side: {hit["key"]: rank for rank, hit in enumerate(found[side]["results"], 1)} for side in ("a", "b")}
    for side, other in (("a", "b"), ("b", "a")):
        found[side]["results"] = [
            hit | {"rank": rank, "other_rank": ranks[other].get(hit["key"])}
            for rank, hit in enumerate(found[side]["results"][: body.k], 1)
        ]
        found[side]["depth"] = depth
    return found


def _compare(a: Index, b: Index) -> dict[str, Any]:
    keys = _shared_keys(a, b)
    names = tuple(name for name in a.modalities if name in b.modalities)
    if not names:
        raise ApiError(409, "different_items", "the indexes have no modality in common")
    drawn = [index.embeddings(keys=keys) for index in (a, b)]
    rows = [{name: corrected(index, one.z)[name] for name in names} for index, one in zip((a, b), drawn, strict=True)]
    present = {name: drawn[0].present[name] & drawn[1].present[name] for name in names}
    some_n = np.any([present[name] for name in names], axis=0)
    center = [_centers(z, present)[some_n] for z in rows]
    keys = [key for key, has in zip(keys, some_n, strict=True) if has]
    k = max(1, min(10, len(keys) - 1))
    near = [_nearest(c, k) for c in center]
    kept_n = np.array([len(np.intersect1d(x, y)) / k for x, y in zip(*near, strict=True)])
    flat = [principal_places(c.astype(np.float32))[0].astype(np.float64) for c in center]
    turned_b, residual_2 = procrustes(flat[0], flat[1])
    residual = procrustes(*_same_width(center[0], center[1]))[1]
    measured = [
        _metrics({name: z[name][some_n] for name in names}, {n: p[some_n] for n, p in present.items()}) for z in rows
    ]
    unit_a, unit_b = _unit_places(flat[0], turned_b)
    order = np.lexsort((np.arange(len(keys)), kept_n))
    return {
        "items": len(keys),
        "of": len(a),
        "modalities": list(names),
        "k": k,
        "kept": float(kept_n.mean()),
        "residual": residual,
        "map_residual": residual_2,
        "metrics": {"a": measured[0], "b": measured[1]},
        "movers": [
            {
                "key": keys[n],
                "name": a.get(keys[n], with_rows=False).name,
                "kept": float(kept_n[n]),
                "lost": [keys[other] for other in near[0][n] if other not in near[1][n]][:5],
                "gained": [keys[other] for other in near[1][n] if other not in near[0][n]][:5],
            }
            for n in order[:_MOST_SHOWN].tolist()
        ],
        "points": {
            "keys": keys,
            "a": unit_a.round(4).tolist(),
            "b": unit_b.round(4).tolist(),
            "kept": kept_n.round(3).tolist(),
        },
    }


def _shared_keys(a: Index, b: Index) -> list[str]:
    if len(a) != len(b):
        raise _different(f"one index has {len(a):,} items, the other {len(b):,}", a, b)
    drawn = a.embeddings(limit=min(_ITEMS, max(1, len(a))), seed=_SEED)
    missing = [key for key in drawn.keys if key not in b]
    if missing or not drawn.keys:
        shown = repr(missing[0][:100]) if missing else "none"
        raise _different(f"{len(missing):,} of {len(drawn.keys):,} keys are only in the first, such as {shown}", a, b)
    return drawn.keys


def _different(reason: str, a: Index, b: Index) -> ApiError:
    spaces = [str(index.stats().get("space") or "no space")[:12] for index in (a, b)]
    return ApiError(
        409,
        "different_items",
        f"the indexes have different items: {reason} (spaces {spaces[0]}, {spaces[1]})",
        field="b",
    )


def _centers(z: Mapping[str, NDArray[np.float32]], present: Mapping[str, NDArray[np.bool_]]) -> Floats:
    """Return (n, D) normalized means of the corrected rows that items have in both indexes."""
    total = np.sum([np.where(present[name][:, None], z[name], 0.0) for name in z], axis=0, dtype=np.float64)
    return np.asarray(total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12))


def _nearest(center_nD: Floats, k: int) -> NDArray[np.int64]:
    rows = torch.from_numpy(center_nD.astype(np.float32))
    found = []
    for start in range(0, len(rows), 2048):
        block = rows[start : start + 2048]
        score = block @ rows.mT
        score[torch.arange(len(block)), start + torch.arange(len(block))] = -2.0
        found.append(score.topk(k, dim=1).indices)
    return np.asarray(torch.cat(found).numpy())


def procrustes(a_nD: Floats, b_nD: Floats) -> tuple[Floats, float]:
    """Rotate, reflect, scale and translate `b` to fit `a` (Schönemann, Psychometrika 1966).

    Returns:
        The transformed (n, D) rows, and the residual: the fraction of the variance of `a` that is not explained.
    """
    mean_a, mean_b = a_nD.mean(0), b_nD.mean(0)
    a, b = a_nD - mean_a, b_nD - mean_b
    left, singular, right = np.linalg.svd(b.T @ a)
    size_a, size_b = float((a**2).sum()), float((b**2).sum())
    if size_a < 1e-20 or size_b < 1e-20:
        return a_nD.copy(), 1.0
    turned = (b @ (left @ right)) * (singular.sum() / size_b) + mean_a
    return np.asarray(turned), float(max(0.0, 1.0 - singular.sum() ** 2 / (size_a * size_b)))


def _same_width(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    width = max(a.shape[1], b.shape[1])
    return np.pad(a, ((0, 0), (0, width - a.shape[1]))), np.pad(b, ((0, 0), (0, width - b.shape[1])))


def _unit_places(a_n2: Floats, b_n2: Floats) -> tuple[Floats, Floats]:
    """Scale both maps to [0, 1] with the same scale and offset."""
    both = np.concatenate([a_n2, b_n2])
    low, high = np.quantile(both, [0.002, 0.998], axis=0)
    span = max(float((high - low).max()), 1e-9) * 1.08
    unit = [np.clip((one - (low + high) / 2) / span + 0.5, 0, 1) for one in (a_n2, b_n2)]
    for one in unit:
        one[:, 1] = 1 - one[:, 1]
    return unit[0], unit[1]


def _metrics(z: Mapping[str, NDArray[np.float32]], present: Mapping[str, NDArray[np.bool_]]) -> list[dict[str, Any]]:
    """Return recall over all directions with 95 % intervals over items, the modality gap and the hubness skewness."""
    names = list(z)
    items = len(next(iter(z.values())))
    hits = {1: np.full((items, len(names) ** 2), np.nan), 10: np.full((items, len(names) ** 2), np.nan)}
    skews, gaps = [], []
    column = 0
    for a in names:
        for m in names:
            both = np.flatnonzero(present[a] & present[m])
            if a == m or len(both) < 3:
                continue
            query, gallery = (torch.from_numpy(np.ascontiguousarray(z[one][both])) for one in (a, m))
            score = query @ gallery.mT
            above = (score > score.diagonal()[:, None] + 1e-6).sum(1).numpy()
            for top, hit in hits.items():
                hit[both, column] = above < top
            column += 1
            near = score.topk(min(10, len(both)), dim=1).indices.flatten()
            skews.append(_skewness(np.bincount(near.numpy(), minlength=len(both))))
            gaps.append(float(np.linalg.norm(z[a][both].mean(0) - z[m][both].mean(0))))
    if column == 0:
        return []
    rng = np.random.default_rng(_SEED)
    drawn = rng.integers(0, items, (_RESAMPLES, items))
    found = []
    for top, hit in hits.items():
        known = ~np.isnan(hit[:, :column])
        # Mean over the directions of an item, weighted by their number.
        total, count = np.where(known, hit[:, :column], 0).sum(1), known.sum(1)
        means = total[drawn].sum(1) / np.maximum(count[drawn].sum(1), 1)
        low, high = np.quantile(means, [0.025, 0.975])
        found.append(
            {
                "name": f"R@{top}",
                "value": float(total.sum() / max(count.sum(), 1)),
                "low": float(low),
                "high": float(high),
                "better": "higher",
            }
        )
    found.append({"name": "gap", "value": float(np.mean(gaps)), "low": None, "high": None, "better": "lower"})
    found.append({"name": "hub skewness", "value": float(np.mean(skews)), "low": None, "high": None, "better": "lower"})
    return found


def _skewness(count_G: NDArray[np.int64]) -> float:
    """Return the skewness of the neighbor counts; see `unialign.geometry.hubness`, which also shares ties."""
    centered = count_G - count_G.mean()
    deviation = float(np.sqrt((centered**2).mean()))
    return float((centered**3).mean() / deviation**3) if deviation > 0 else 0.0
