"""Routes about the service: health, readiness, metrics, description and jobs."""

import time
from typing import Annotated, Any

from fastapi import APIRouter, Path, Response

from unialign._version import __version__
from unialign.errors import UniAlignError
from unialign.index import Index, query
from unialign.serve._answers import json_response
from unialign.serve._errors import ApiError
from unialign.serve._service import Service

__all__ = ["job_routes", "root_routes"]

# Minimum seconds between measurements of readiness, so that frequent probes are cheap.
_PROBE_SECONDS = 1.0


def root_routes(service: Service) -> APIRouter:
    """Return the routes outside the base path."""
    router = APIRouter()
    last: list[Any] = [-_PROBE_SECONDS, None]

    @router.get("/healthz", summary="Whether the process responds")
    async def healthz() -> Any:
        return json_response({"status": "ok"})

    @router.get("/readyz", summary="Whether every index can be searched")
    async def readyz() -> Any:
        if time.monotonic() - last[0] >= _PROBE_SECONDS:
            last[1] = await service.read(_probe, service)
            last[0] = time.monotonic()
        if last[1] is not None:
            raise ApiError(503, "not_ready", last[1], retry_after=5)
        generation = max(one.generation for one in service.indexes.values())
        return json_response({"ready": True, "generation": generation})

    @router.get("/metrics", summary="Metrics in the text format of Prometheus")
    async def metrics() -> Any:
        text = await service.read(service.metrics.text)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    @router.get("/api/v1/info", summary="Indexes, limits and permissions")
    async def info() -> Any:
        return json_response(await service.read(_info, service))

    return router


def job_routes(service: Service) -> APIRouter:
    """Return the routes of jobs."""
    router = APIRouter()

    @router.get("/jobs/{id}", summary="State and result of a job")
    async def job(id: Annotated[str, Path(max_length=100)]) -> Any:
        return json_response(service.jobs.get(id).to_dict())

    @router.delete("/jobs/{id}", summary="Cancel a job")
    async def cancel(id: Annotated[str, Path(max_length=100)]) -> Any:
        return json_response(service.jobs.cancel(id).to_dict())

    return router


def _probe(service: Service) -> str | None:
    """Search for an item of every index; return the reason if one fails."""
    for name, index in service.indexes.items():
        try:
            if index.path is not None and not index.path.is_dir():
                return f"the folder of the index {name!r} is gone"
            items = index.items(limit=1)
            if items:
                index.search(query(item=items[0].key), k=1)
        except UniAlignError:
            return f"the index {name!r} cannot be searched"
        except Exception:  # SQLite and file systems raise many types of exceptions
            return f"the index {name!r} cannot be read"
    return None


def _info(service: Service) -> dict[str, Any]:
    settings = service.settings
    return {
        "version": __version__,
        "indexes": [_index_info(service, name, index) for name, index in service.indexes.items()],
        "limits": {
            entry.name: getattr(settings, entry.name)
            for entry in settings.settings()
            if entry.name not in ("hosts", "origins", "writable")
        },
        "writable": settings.writable,
        "decoders": [] if service.decoding is None else ["default"],
        "rerankers": sorted(service.state.get("rerankers", {})),
    }


def _index_info(service: Service, name: str, index: Index) -> dict[str, Any]:
    key = (name, index.generation)
    cache: dict[Any, Any] = service.state.setdefault("info", {})
    if key not in cache:
        # Counts and examples require a pass over the index.
        cache.clear() if len(cache) > 2 * len(service.indexes) else None
        cache[key] = _described(index) | {"id": name, "name": name}
    return dict(cache[key])


def _described(index: Index) -> dict[str, Any]:
    stats = index.stats()
    kinds = {modality: encoder.kind for modality, encoder in index.encoders.items()}
    examples = index.items(limit=12)
    media = {modality for item in examples for modality in index.preview_modalities(item.key)}
    return {
        "space": stats.get("space"),
        "dim": index.dim,
        "items": len(index),
        "modalities": [
            {
                "name": modality,
                "rows": stats["modalities"][modality],
                "encoder": index.can_encode(modality) is None,
                "kind": kinds.get(modality),
                "reason": index.can_encode(modality),
                "media": modality in media,
            }
            for modality in index.modalities
        ],
        "labels": dict(list(index.labels.items())[:1000]),
        "fields": index.fields,
        "generation": index.generation,
        "calibration": {"method": index.calibration.method, "reason": index.calibration.reason},
        "examples": [{"key": item.key, "name": item.name} for item in examples],
    }
