"""Routes of items and their media: `/items`, `/items/{key}`, `/items/{key}/media/{modality}`."""

import base64
import binascii
import hashlib
import io
import json
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request, Response

from unialign._optional import optional_module
from unialign.errors import ConfigError
from unialign.index import Index
from unialign.serve._answers import BASE, json_response, media_links
from unialign.serve._errors import ApiError
from unialign.serve._media import FORMATS
from unialign.serve._queries import check_modality, modality_of_kind
from unialign.serve._schemas import ItemBody
from unialign.serve._service import Service

__all__ = ["routes"]

_Key = Annotated[str, Path(min_length=1, max_length=10_000)]
_Index = Annotated[str | None, Query(max_length=200)]
_SIZES = ("64", "256")


def routes(service: Service) -> APIRouter:
    """Return the routes of items."""
    router = APIRouter()

    # Keys may contain slashes, so the longer path is declared first.
    @router.get("/items/{key:path}/media/{modality}", summary="Picture, text or sound of an item")
    async def media(
        request: Request,
        key: _Key,
        modality: Annotated[str, Path(max_length=200)],
        index: _Index = None,
        size: Annotated[str | None, Query(max_length=4)] = None,
    ) -> Any:
        _, chosen = service.index(index)
        if size is not None and size not in _SIZES:
            raise ApiError(422, "bad_request", f"size must be {' or '.join(_SIZES)}", field="size")
        kind, content = await service.read(_media, chosen, key, modality, size)
        tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        headers = {"Cache-Control": "private, max-age=3600", "ETag": tag}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=kind)

    @router.get("/items", summary="Items in the order in which they were added, page by page")
    async def items(
        index: _Index = None,
        cursor: Annotated[str | None, Query(max_length=20_000)] = None,
        limit: Annotated[int, Query(ge=1)] = 100,
        where: Annotated[str | None, Query(max_length=20_000)] = None,
    ) -> Any:
        name, chosen = service.index(index)
        most = service.settings.page_items
        if limit > most:
            raise ApiError(422, "too_many_results", f"the limit is {most} items per page", field="limit", limit=most)
        return json_response(await service.read(_page, service, name, chosen, cursor, limit, where))

    @router.get("/items/{key:path}", summary="One item")
    async def item(key: _Key, index: _Index = None) -> Any:
        name, chosen = service.index(index)
        return json_response(await service.read(_described, service, name, chosen, key))

    @router.put("/items/{key:path}", summary="Add or replace an item")
    async def put(request: Request, key: _Key, body: ItemBody) -> Any:
        status, contents = await service.compute(_put, service, key, body, request.headers.get("if-match"))
        return json_response(contents, status)

    @router.patch("/items/{key:path}", summary="Change fields of an item")
    async def patch(request: Request, key: _Key, body: ItemBody) -> Any:
        return json_response(await service.compute(_patch, service, key, body, request.headers.get("if-match")))

    @router.delete("/items/{key:path}", summary="Delete an item")
    async def delete(request: Request, key: _Key, index: _Index = None) -> Any:
        return json_response(await service.compute(_delete, service, index, key, request.headers.get("if-match")))

    return router


def _existing(index: Index, key: str) -> None:
    if "\0" in key or key not in index:
        raise ApiError(404, "no_item", f"there is no item {key[:100]!r}", field="key")


def _described(service: Service, name: str, index: Index, key: str) -> dict[str, Any]:
    _existing(index, key)
    item = index.get(key, with_rows=False)
    return _item_json(service, name, index, item) | {"generation": index.generation}


def _item_json(service: Service, name: str, index: Index, item: Any) -> dict[str, Any]:
    return {
        "key": item.key,
        "name": item.name,
        "label": item.label,
        "metadata": dict(item.metadata),
        "modalities": list(item.modalities),
        "missing": [modality for modality in index.modalities if modality not in item.modalities],
        "media": media_links(service, name, index, item.key),
    }


def _page(
    service: Service, name: str, index: Index, cursor: str | None, limit: int, where: str | None
) -> dict[str, Any]:
    after = None
    if cursor is not None:
        generation, after = _read_cursor(cursor)
        if generation != index.generation or after not in index:
            raise ApiError(410, "cursor_expired", "the index has changed; start again without cursor", field="cursor")
    try:
        found = index.items(where=where, after=after, limit=limit + 1)
    except ConfigError as error:
        raise ApiError(422, "bad_filter", str(error), field="where") from None
    shown = found[:limit]
    return {
        "items": [_item_json(service, name, index, item) for item in shown],
        "cursor": _write_cursor(index.generation, shown[-1].key) if len(found) > limit else None,
        "total": len(index),
        "generation": index.generation,
    }


def _write_cursor(generation: int, after: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([generation, after]).encode()).decode()


def _read_cursor(text: str) -> tuple[int, str]:
    try:
        generation, after = json.loads(base64.urlsafe_b64decode(text.encode("ascii")))
    except (ValueError, TypeError, binascii.Error, RecursionError):
        generation = after = None
    if not isinstance(generation, int) or not isinstance(after, str):
        raise ApiError(422, "bad_cursor", "the cursor was not created by this service", field="cursor")
    return generation, after


def _media(index: Index, key: str, modality: str, size: str | None) -> tuple[str, bytes]:
    _existing(index, key)
    if modality not in index.modalities:
        raise ApiError(404, "no_media", f"there is no modality {modality[:100]!r}", field="modality")
    found = index.preview(key, modality)
    if found is None:
        raise ApiError(404, "no_media", f"the item has no media for {modality!r}", field="modality")
    kind, content = found
    if size is not None and kind.startswith("image/"):
        return _scaled(kind, content, int(size))
    # Only known types are sent unchanged; a browser could execute content of other types.
    if not kind.startswith(("image/png", "image/jpeg", "image/webp", "image/gif", "audio/", "text/plain")):
        kind = "application/octet-stream"
    return kind, content


def _scaled(kind: str, content: bytes, size: int) -> tuple[str, bytes]:
    pil = optional_module("PIL.Image", "thumbnails", "serve")
    with pil.open(io.BytesIO(content), formats=FORMATS) as image:
        if max(image.size) <= size:
            return kind, content
        image.thumbnail((size, size))
        out = io.BytesIO()
        image.convert("RGBA").save(out, "WEBP", quality=85)
    return "image/webp", out.getvalue()


def _matching(index: Index, if_match: str | None) -> None:
    if if_match is not None and if_match.strip('" ') != str(index.generation):
        raise ApiError(
            409, "conflict", f"the index has generation {index.generation}, not {if_match[:40]}", field="If-Match"
        )


def _rows(service: Service, index: Index, body: ItemBody) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for name, vector in (body.vectors or {}).items():
        check_modality(index, name, f"vectors.{name}")
        rows[name] = vector
    for name, text in (body.texts or {}).items():
        if len(text) > service.settings.characters:
            raise ApiError(
                422, "too_long", "the text is too long", field=f"texts.{name}", limit=service.settings.characters
            )
        modality_of_kind(index, "text", name, f"texts.{name}")
        rows[name] = index.encode({name: [text]})[name][0].float().numpy()
    return rows


def _previews(body: ItemBody) -> dict[str, tuple[str, bytes]]:
    return {name: ("text/plain; charset=utf-8", text.encode()) for name, text in (body.texts or {}).items()}


def _put(service: Service, key: str, body: ItemBody, if_match: str | None) -> tuple[int, dict[str, Any]]:
    name, index = service.index(body.index)
    _check_key(service, key)
    _matching(index, if_match)
    rows = {modality: row for modality, row in _rows(service, index, body).items() if row is not None}
    if not rows:
        raise ApiError(422, "no_rows", "an item needs at least one of vectors and texts", field="vectors")
    import numpy as np

    with service.guards[name].writing():
        commit = index.add(
            {modality: np.asarray(row, np.float32)[None] for modality, row in rows.items()},
            keys=[key],
            labels=[body.label],
            metadata=[body.metadata],
            previews=[_previews(body)],
            on_conflict="replace",
        )
    return (201 if commit.added else 200), {"generation": commit.generation, "links": {"item": _address(name, key)}}


def _patch(service: Service, key: str, body: ItemBody, if_match: str | None) -> dict[str, Any]:
    name, index = service.index(body.index)
    _existing(index, key)
    _matching(index, if_match)
    rows = _rows(service, index, body)
    with service.guards[name].writing():
        commit = index.update(
            key, rows or None, label=body.label, metadata=body.metadata, previews=_previews(body) or None
        )
    return {"generation": commit.generation}


def _delete(service: Service, name: str | None, key: str, if_match: str | None) -> dict[str, Any]:
    name, index = service.index(name)
    _existing(index, key)
    _matching(index, if_match)
    with service.guards[name].writing():
        commit = index.delete(keys=[key])
    return {"generation": commit.generation, "deleted": commit.deleted}


def _check_key(service: Service, key: str) -> None:
    limit = service.settings.key_characters
    if len(key) > limit:
        raise ApiError(422, "too_long", f"the key has more than {limit:,} characters", field="key", limit=limit)
    if any(ord(letter) < 32 for letter in key):
        raise ApiError(422, "bad_key", "a key must not contain control characters", field="key")


def _address(name: str, key: str) -> str:
    return f"{BASE}/items/{quote(key, safe='')}?index={quote(name, safe='')}"
