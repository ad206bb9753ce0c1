"""Routes of maps: `/maps/{id}` and `/maps/{id}/rows`.

Shapes: `P` points, `n` items of the sample.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Path, Query, Response
from numpy.typing import NDArray
from pydantic import Field, StrictInt

from unialign.diagnostics import SuspiciousItems
from unialign.errors import ConfigError
from unialign.index import Index
from unialign.serve._answers import json_response, media_links
from unialign.serve._errors import ApiError
from unialign.serve._jobs import Progress
from unialign.serve._map_points import (
    FLAGS,
    MapPoints,
    cached_places,
    calibration_name,
    encode_points,
    keep_places,
    place_points,
    principal_places,
    sample_points,
    to_units,
)
from unialign.serve._schemas import Body
from unialign.serve._service import Service
from unialign.serve._umap_process import check_umap, has_umap, umap_places

__all__ = ["routes"]

Layout = Literal["pca", "umap"]
# Default and maximum number of points of a map.
_POINTS, _MOST_POINTS = 100_000, 500_000
# Maximum number of items that a response describes, and of keys that it lists.
_MOST_ITEMS, _MOST_KEYS = 1_000, 100_000
_KEPT = 4

_Name = Annotated[str, Path(min_length=1, max_length=200)]
_Number = Annotated[float, Field(ge=0, le=65_535)]


class RowsRequest(Body):
    """Body of `POST /maps/{id}/rows`: point numbers, a polygon on the map, or keys of items."""

    layout: Layout = "pca"
    points: Annotated[StrictInt, Field(ge=1, le=_MOST_POINTS)] = _POINTS
    generation: StrictInt | None = None
    rows: Annotated[list[Annotated[StrictInt, Field(ge=0)]], Field(max_length=10_000)] | None = None
    polygon: Annotated[list[tuple[_Number, _Number]], Field(min_length=3, max_length=256)] | None = None
    keys: Annotated[list[Annotated[str, Field(min_length=1, max_length=10_000)]], Field(max_length=1_000)] | None = None
    modalities: Annotated[list[str], Field(max_length=100)] | None = None
    limit: Annotated[StrictInt, Field(ge=0, le=_MOST_ITEMS)] = 100


@dataclass(eq=False)
class _Kept:
    """Layouts of the same sample."""

    points: MapPoints
    places: dict[str, NDArray[np.uint16]]
    number_of: dict[str, int]


class MapStore:
    """Maps of the last few states of indexes, in memory."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Any, ...], _Kept] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, service: Service, name: str, index: Index, points: int) -> _Kept:
        """Return the sample of an index with its principal layout."""
        with service.guards[name].reading():
            state = (name, index.generation, calibration_name(index), points)
            with self._lock:
                if state in self._kept:
                    self._kept.move_to_end(state)
                    return self._kept[state]
                placed = place_points(sample_points(index, points))
                kept = _Kept(placed, {"pca": placed.xy}, {key: n for n, key in enumerate(placed.keys)})
                self._kept[state] = kept
                while len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
                return kept


def routes(service: Service) -> APIRouter:
    """Return the routes of maps."""
    router = APIRouter()
    store: MapStore = service.state.setdefault("maps", MapStore())

    @router.get("/maps/{id}", summary="Points of a map in binary form")
    async def get_map(
        id: _Name,
        layout: Layout = "pca",
        points: Annotated[int, Query(ge=1, le=_MOST_POINTS)] = _POINTS,
        where: Annotated[str | None, Query(max_length=20_000)] = None,
        items: bool = False,
    ) -> Any:
        name, index = service.index(id)
        kept = await service.compute(store.get, service, name, index, points)
        xy = await service.compute(_places, service, name, index, kept, layout)
        if xy is None:
            key = ("map", name, kept.points.generation, kept.points.calibration, len(kept.points), layout)
            job = service.jobs.submit(
                "map", lambda progress: _compute_umap(service, name, index, kept, points, progress), key=key
            )
            return json_response({"job": job.id, "state": job.state}, 202)
        content, headers = await service.compute(_encoded, service, name, index, kept, xy, where, items)
        return Response(content, headers=headers, media_type="application/octet-stream")

    @router.post("/maps/{id}/rows", summary="Items of points, of a polygon, or of keys, with all their points")
    async def rows(id: _Name, body: RowsRequest) -> Any:
        if sum(value is not None for value in (body.rows, body.polygon, body.keys)) != 1:
            raise ApiError(422, "bad_request", "the request needs exactly one of rows, polygon and keys", field="rows")
        name, index = service.index(id)
        kept = await service.compute(store.get, service, name, index, body.points)
        if body.generation not in (None, kept.points.generation):
            raise ApiError(410, "map_expired", "the index has changed; request the map again", field="generation")
        return json_response(await service.compute(_rows, service, name, index, kept, body))

    return router


def _places(service: Service, name: str, index: Index, kept: _Kept, layout: Layout) -> NDArray[np.uint16] | None:
    if layout not in kept.places:
        check_umap()
        found = cached_places(index, kept.points, layout)
        if found is None:
            return None
        kept.places[layout] = found
    return kept.places[layout]


def _compute_umap(
    service: Service, name: str, index: Index, kept: _Kept, points: int, progress: Progress
) -> dict[str, Any]:
    progress(0, 2)
    with service.guards[name].reading():
        # The embeddings of the sample are read again, since keeping them would take gigabytes.
        again = sample_points(index, points)
    if again.generation != kept.points.generation:
        raise ConfigError("the index has changed while its map was computed; request the map again")
    progress(1, 2)
    start = principal_places(again.z)[0]
    # UMAP needs more points for its neighborhoods.
    places = start if len(start) < 8 else umap_places(again.z, start, check=lambda: progress(1, 2))
    xy = to_units(places)
    keep_places(index, kept.points, "umap", xy)
    kept.places["umap"] = xy
    return {"layout": "umap", "points": len(xy), "generation": again.generation}


def _encoded(
    service: Service, name: str, index: Index, kept: _Kept, xy: NDArray[np.uint16], where: str | None, items: bool
) -> tuple[bytes, dict[str, str]]:
    points = kept.points
    flags_P, has_overlays = _flags(service, name, index, kept)
    if where is not None:
        flags_P = flags_P | np.where(_matches(service, name, index, kept, where), 0, FLAGS["filtered"]).astype(np.uint8)
    headers = {
        "X-Map-Rows": str(points.generation),
        "X-Map-Layouts": "pca umap" if has_umap() else "pca",
        "X-Map-Items": str(len(points.keys)),
        "X-Map-Total": f"{sum(points.rows.values())}",
        "X-Map-Overlays": "yes" if has_overlays else "no",
        "X-Map-Explained": f"{points.explained[0]:.4f} {points.explained[1]:.4f}",
    }
    return encode_points(xy, points.modality, flags_P, points.item if items else None), headers


def _flags(service: Service, name: str, index: Index, kept: _Kept) -> tuple[NDArray[np.uint8], bool]:
    """Return (P,) flags by the last diagnosis, and whether there was one of this generation."""
    points = kept.points
    faults: SuspiciousItems | None = service.state.get("faults", {}).get((name, points.generation, points.calibration))
    flags_nM = np.zeros((len(points.keys), len(index.modalities)), np.uint8)
    for fault in faults.found if faults is not None else ():
        number = kept.number_of.get(fault.key)
        if number is not None:
            flags_nM[number, [index.modalities.index(modality) for modality in fault.modalities]] |= FLAGS[fault.kind]
    return flags_nM[points.item, points.modality], faults is not None


def _matches(service: Service, name: str, index: Index, kept: _Kept, where: str) -> NDArray[np.bool_]:
    try:
        with service.guards[name].reading():
            found = {item.key for item in index.items(where=where, limit=max(1, len(index)))}
    except ConfigError as error:
        raise ApiError(422, "bad_filter", str(error), field="where") from None
    inside_n = np.array([key in found for key in kept.points.keys], np.bool_)
    return inside_n[kept.points.item]


def _rows(service: Service, name: str, index: Index, kept: _Kept, body: RowsRequest) -> dict[str, Any]:
    points = kept.points
    chosen_P = np.ones(len(points), np.bool_)
    if body.modalities is not None:
        wanted = [m for m, modality in enumerate(index.modalities) if modality in body.modalities]
        chosen_P = np.isin(points.modality, wanted)
    if body.rows is not None:
        if any(row >= len(points) for row in body.rows):
            raise ApiError(422, "unknown_row", f"the map has {len(points)} points", field="rows", limit=len(points))
        rows = np.array(body.rows, np.int64)
        rows = rows[chosen_P[rows]]
    elif body.polygon is not None:
        xy = kept.places.get(body.layout)
        if xy is None:
            raise ApiError(409, "no_layout", f"the layout {body.layout!r} was not computed", field="layout")
        rows = np.flatnonzero(chosen_P & inside_polygon(xy, body.polygon))
    else:
        numbers = [kept.number_of[key] for key in body.keys or () if key in kept.number_of]
        rows = np.flatnonzero(chosen_P & np.isin(points.item, numbers))
        # In the order of the keys.
        rank = {number: place for place, number in enumerate(numbers)}
        rows = rows[np.argsort([rank[int(number)] for number in points.item[rows]], kind="stable")]
    numbers_k = list(dict.fromkeys(points.item[rows].tolist()))
    shown = numbers_k[: body.limit]
    return {
        "items": _described(service, name, index, kept, shown, set(rows.tolist())),
        "keys": [points.keys[number] for number in numbers_k[:_MOST_KEYS]],
        "total_items": len(numbers_k),
        "total_rows": len(rows),
        "generation": points.generation,
    }


def _described(
    service: Service, name: str, index: Index, kept: _Kept, numbers: Sequence[int], inside: set[int]
) -> list[dict[str, Any]]:
    """Return items with the numbers of their points by modality."""
    points = kept.points
    flags_P, _ = _flags(service, name, index, kept)
    of_item: dict[int, dict[str, int]] = {number: {} for number in numbers}
    for row in np.flatnonzero(np.isin(points.item, numbers)).tolist():
        of_item[int(points.item[row])][index.modalities[points.modality[row]]] = row
    found = []
    with service.guards[name].reading():
        for number in numbers:
            key, rows = points.keys[number], of_item[number]
            if key not in index:
                continue
            item = index.get(key, with_rows=False)
            found.append(
                {
                    "key": key,
                    "name": item.name,
                    "label": item.label,
                    "modalities": list(item.modalities),
                    "missing": [modality for modality in index.modalities if modality not in item.modalities],
                    "rows": rows,
                    "inside": [modality for modality, row in rows.items() if row in inside],
                    "flags": {modality: int(flags_P[row]) for modality, row in rows.items() if flags_P[row]},
                    "media": media_links(service, name, index, key),
                }
            )
    return found


def inside_polygon(xy_P2: NDArray[np.uint16], polygon: Sequence[tuple[float, float]]) -> NDArray[np.bool_]:
    """Return whether points are inside a polygon, by the even-odd rule."""
    corners = np.array(polygon, np.float64)
    x, y = xy_P2[:, 0].astype(np.float64), xy_P2[:, 1].astype(np.float64)
    # Only points in the bounding box can be inside.
    low, high = corners.min(0), corners.max(0)
    near = np.flatnonzero((x >= low[0]) & (x <= high[0]) & (y >= low[1]) & (y <= high[1]))
    x, y = x[near], y[near]
    inside = np.zeros(len(near), np.bool_)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, 0), strict=True):
        if y0 == y1:
            continue
        crosses = ((y0 > y) != (y1 > y)) & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
        inside ^= crosses
    found = np.zeros(len(xy_P2), np.bool_)
    found[near] = inside
    return found
