"""Routes for searches: `/search`, `/search/files`, `/embed`, `/duplicates`."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from pydantic import ValidationError

from unialign.errors import ConfigError
from unialign.index import Found, Index, Query
from unialign.serve._answers import found_to_json, json_response, media_links
from unialign.serve._coalesce import Coalescer
from unialign.serve._errors import ApiError
from unialign.serve._multipart import read_multipart
from unialign.serve._queries import check_modality, encoded, make_query
from unialign.serve._schemas import DuplicatesRequest, EmbedRequest, SearchRequest
from unialign.serve._service import Service
from unialign.serve._validation import validation_error

__all__ = ["routes", "search_options"]

_DEFAULTS = {"unit": "item", "correction": "auto", "fuse": "mean", "exact": "auto", "target": "any"}


def routes(service: Service) -> APIRouter:
    """Return the routes of searches."""
    router = APIRouter()
    settings, metrics = service.settings, service.metrics

    def batch_search(name: str, index: Index, queries: Sequence[Query], options: Mapping[str, Any]) -> list[Found]:
        started = time.perf_counter()
        ready = encoded(index, queries)
        seconds = time.perf_counter() - started
        if seconds > 1e-4:
            metrics.stage("encode", seconds)
        with service.guards[name].reading():
            found: list[Found] = index.search(ready, **options)
        return [replace(one, seconds={"encode": seconds, **one.seconds}) for one in found]

    coalescer = Coalescer(service.heavy, metrics, batch=settings.batch, search=batch_search)

    async def run(request: Request, body: SearchRequest, files: Mapping[str, bytes]) -> Any:
        name, index = service.index(body.index)
        _check_depth(body, service)
        if files or settings.writable:
            # Files take long to decode, and a change may lock the catalog.
            query = await service.compute(make_query, index, body.parts, files, settings)
        else:
            query = make_query(index, body.parts, {}, settings)
        state = request.scope["state"]

        def answer(found: Found) -> Any:
            timed = replace(found, seconds={"queue": state.get("queued", 0.0), **found.seconds})
            return json_response(found_to_json(service, name, index, timed, body.offset))

        options = search_options(service, index, body)
        return await coalescer.submit(name, index, query, options, state["gone"], answer)

    @router.post("/search", summary="Find items by a mixture of texts, items and vectors")
    async def search(request: Request, body: SearchRequest) -> Any:
        return await run(request, body, {})

    @router.post(
        "/search/files",
        summary="Find items with files as parts of the query",
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    "multipart/form-data": {
                        "schema": {
                            "type": "object",
                            "required": ["request"],
                            "properties": {
                                "request": {"type": "string", "description": "JSON of a search; `file` names a part"},
                                "f0": {"type": "string", "format": "binary"},
                            },
                        }
                    }
                },
            }
        },
    )
    async def search_files(request: Request) -> Any:
        content, files = read_multipart(await request.body(), request.headers.get("content-type", ""), settings.files)
        return await run(request, _parsed(content, service), files)

    @router.post("/embed", summary="Embed texts, items and vectors")
    async def embed(body: EmbedRequest) -> Any:
        _, index = service.index(body.index)
        query = make_query(index, body.parts, {}, settings)
        return json_response(await service.compute(_embed, index, query))

    @router.post("/duplicates", summary="Find groups of items that are copies of each other")
    async def duplicates(body: DuplicatesRequest) -> Any:
        name, index = service.index(body.index)
        return json_response(await service.compute(_duplicates, service, name, index, body))

    return router


def search_options(service: Service, index: Index, body: SearchRequest) -> dict[str, Any]:
    """Return the keyword arguments of `Index.search`; raise ApiError for invalid ones."""
    targets = [body.target] if isinstance(body.target, str) else body.target
    for target in targets:
        if target not in ("any", "best") or len(targets) > 1:
            check_modality(index, target, "target")
    options: dict[str, Any] = {"k": body.offset + body.k}
    for option, default in _DEFAULTS.items():
        value = getattr(body, option)
        if value != default:
            options[option] = tuple(value) if isinstance(value, list) else value
    for option in ("where", "deduplicate", "min_probability"):
        if getattr(body, option) is not None:
            options[option] = getattr(body, option)
    if body.exclude:
        options["exclude"] = tuple(body.exclude)
    if body.rerank is not None:
        rerankers = service.state.get("rerankers", {})
        if body.rerank not in rerankers:
            known = ", ".join(rerankers) or "none"
            raise ApiError(422, "no_reranker", f"there is no re-ranker {body.rerank!r}; known: {known}", field="rerank")
        options["rerank"] = rerankers[body.rerank]
    return options


def _check_depth(body: SearchRequest, service: Service) -> None:
    settings = service.settings
    if body.k > settings.k:
        raise ApiError(
            422, "too_many_results", f"k is {body.k}; the limit is {settings.k}", field="k", limit=settings.k
        )
    if body.offset + body.k > settings.depth:
        raise ApiError(
            422,
            "too_deep",
            f"offset + k is {body.offset + body.k}; the limit is {settings.depth}",
            field="offset",
            limit=settings.depth,
        )


def _parsed(content: bytes, service: Service) -> SearchRequest:
    if len(content) > service.settings.body_bytes:
        limit = service.settings.body_bytes
        raise ApiError(413, "too_large", f"the part `request` is larger than {limit:,} bytes", limit=limit)
    try:
        return SearchRequest.model_validate(json.loads(content))
    except ValidationError as error:
        raise validation_error(error.errors()) from None
    except (ValueError, RecursionError):
        raise ApiError(400, "malformed", "the part `request` is not valid JSON", field="request") from None


def _embed(index: Index, query: Query) -> dict[str, Any]:
    vectors: list[list[float]] = []
    modalities: list[str] = []
    for part in encoded(index, [query])[0].parts:
        if part.kind == "vector":
            vectors.append([float(value) for value in part.value])
            modalities.append(str(part.modality))
        else:
            rows = index.get(part.value).rows
            for name in part.modalities or rows:
                if name in rows:
                    vectors.append([float(value) for value in rows[name]])
                    modalities.append(name)
    return {"vectors": vectors, "modality": modalities}


def _duplicates(service: Service, name: str, index: Index, body: DuplicatesRequest) -> dict[str, Any]:
    groups = list(index.duplicates(threshold=body.threshold, within=body.within))
    shown = groups[body.offset : body.offset + body.limit]
    return {
        "groups": [
            {
                "keys": list(group.keys),
                "cause": group.cause,
                "modality": getattr(group, "modality", None),
                "media": {key: media_links(service, name, index, key) for key in list(group.keys)[:100]},
            }
            for group in shown
        ],
        "total": len(groups),
        "offset": body.offset,
        "generation": index.generation,
    }


def check_where(index: Index, where: str | None) -> None:
    """Raise ApiError 422 for an invalid filter, before anything is computed."""
    if where is not None:
        try:
            index.items(where=where, limit=1)
        except ConfigError as error:
            raise ApiError(422, "bad_filter", str(error), field="where") from None
