"""Files of the page: a fixed list of names, read once, with an ETag."""

import gzip
import hashlib
from functools import lru_cache
from importlib import resources
from typing import Any

from fastapi import APIRouter, Request, Response

__all__ = ["page_files", "routes"]

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
}
_INDEX = "index.html"


@lru_cache(maxsize=64)
def _compressed(content: bytes) -> bytes:
    # A timestamp in the header would change the bytes.
    return gzip.compress(content, mtime=0)


def page_files() -> dict[str, tuple[str, bytes]]:
    """Return path -> (content type, content) of the files of the package folder `page`."""
    found: dict[str, tuple[str, bytes]] = {}
    folder = resources.files("unialign.serve") / "page"
    pending = [(folder, "/")]
    while pending:
        place, prefix = pending.pop()
        if not place.is_dir():
            continue
        for entry in place.iterdir():
            if entry.is_dir():
                if not entry.name.startswith("_"):
                    pending.append((entry, f"{prefix}{entry.name}/"))
            elif (suffix := "." + entry.name.rpartition(".")[2]) in _TYPES:
                found[prefix + entry.name] = (_TYPES[suffix], entry.read_bytes())
    if "/" + _INDEX in found:
        found["/"] = found["/" + _INDEX]
    return found


def routes(files: dict[str, tuple[str, bytes]], *, reload: bool = False) -> APIRouter:
    """Return one route for each file; with `reload`, files are read again at each request."""
    router = APIRouter()

    def add(path: str) -> None:
        async def send(request: Request) -> Any:
            kind, content = (page_files() if reload else files)[path]
            is_small = "gzip" in request.headers.get("accept-encoding", "")
            tag = f'"{hashlib.sha256(content).hexdigest()[:32]}{"-gzip" if is_small else ""}"'
            headers = {"ETag": tag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
            if tag in request.headers.get("if-none-match", ""):
                return Response(status_code=304, headers=headers)
            if is_small:
                headers["Content-Encoding"] = "gzip"
                content = _compressed(content)
            return Response(content, headers=headers, media_type=kind)

        router.add_api_route(path, send, methods=["GET", "HEAD"], include_in_schema=False)

    for path in files:
        add(path)
    return router
