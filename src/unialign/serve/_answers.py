"""JSON responses, and URLs of media."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from unialign.index import Found, Index
from unialign.serve._service import Service

__all__ = ["found_to_json", "json_response", "media_links"]

BASE = "/api/v1"
_MOST_LINKS = 100_000


def json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Any:
    """Return a JSON response; raise for numbers that are not finite, which JSON cannot represent."""
    from fastapi import Response

    body = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    return Response(body, status, dict(headers or {}), "application/json")


def media_links(service: Service, name: str, index: Index, key: str) -> dict[str, str]:
    """Return modality -> URL of the media of an item."""
    suffix = "" if name == next(iter(service.indexes)) else f"?index={quote(name, safe='')}"
    # Cached, since finding the previews of an item reads each of them.
    cache: dict[tuple[str, int, str], dict[str, str]] = service.state.setdefault("media_links", {})
    place = (name, index.generation, key)
    if place not in cache:
        if len(cache) >= _MOST_LINKS:
            cache.clear()
        cache[place] = {
            modality: f"{BASE}/items/{quote(key, safe='')}/media/{quote(modality, safe='')}{suffix}"
            for modality in index.preview_modalities(key)
        }
    return cache[place]


def found_to_json(service: Service, name: str, index: Index, found: Found, offset: int) -> dict[str, Any]:
    """Return the JSON object of search results."""
    contents = found.to_dict()
    hits = found.hits[offset:]
    contents["results"] = [
        one | {"media": media_links(service, name, index, hit.key)}
        for one, hit in zip(contents["results"][offset:], hits, strict=True)
    ]
    return contents
