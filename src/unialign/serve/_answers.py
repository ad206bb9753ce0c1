"""Answers in JSON, and addresses of media."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from unialign.index import Found, Hit, Index
from unialign.serve._service import Service

__all__ = ["found_to_json", "json_response", "media_links"]

BASE = "/api/v1"


def json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Any:
    """Return a response; numbers that are not finite raise, since JSON has none."""
    from fastapi import Response

    body = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    return Response(body, status, dict(headers or {}), "application/json")


def media_links(service: Service, name: str, index: Index, key: str) -> dict[str, str]:
    """Return modality -> address of the media of an item."""
    suffix = "" if name == next(iter(service.indexes)) else f"?index={quote(name, safe='')}"
    return {
        modality: f"{BASE}/items/{quote(key, safe='')}/media/{quote(modality, safe='')}{suffix}"
        for modality in index.preview_modalities(key)
    }


def found_to_json(service: Service, name: str, index: Index, found: Found, offset: int) -> dict[str, Any]:
    """Return the answer to a search."""
    contents = found.to_dict()
    hits = found.hits[offset:]
    contents["results"] = [
        one | {"media": _links(service, name, index, hit)}
        for one, hit in zip(contents["results"][offset:], hits, strict=True)
    ]
    return contents


def _links(service: Service, name: str, index: Index, hit: Hit) -> dict[str, str]:
    return media_links(service, name, index, hit.key)
