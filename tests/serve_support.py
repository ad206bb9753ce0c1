"""Helpers of the tests of the service: a client without a network, a small index, and bodies."""

import asyncio
import io
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import unialign as ua
from unialign.encoders import create

DIM, ITEMS = 8, 40
TOKEN = "secret-token-of-the-tests-0123456789"


@dataclass
class Answer:
    """Answer of the app."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """Code of an error."""
        return str(self.json["error"]["code"])


class Client:
    """Calls an ASGI app; requests run in one event loop, so that they share queues."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.loop = asyncio.new_event_loop()
        # A thread of its own, since Playwright keeps a loop running in the main thread.
        self._thread = ThreadPoolExecutor(1)

    def run(self, work: Any) -> Any:
        """Complete a coroutine in the loop."""
        return self._thread.submit(self.loop.run_until_complete, work).result()

    def __call__(self, method: str, path: str, body: Any = None, **options: Any) -> Answer:
        answer: Answer = self.run(self.send(method, path, body, **options))
        return answer

    def close(self) -> None:
        self._thread.shutdown()
        self.loop.close()

    async def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str | None] | None = None,
        chunks: Sequence[bytes] | None = None,
        hang_up: asyncio.Event | None = None,
        stall: bool = False,
        client: str = "127.0.0.1",
    ) -> Answer:
        """Send a request; `chunks` without a length, `stall` never ends, and `hang_up` closes the connection."""
        given: dict[str, str | None] = {"host": "127.0.0.1:8000"}
        content = b""
        if isinstance(body, bytes):
            content = body
        elif body is not None:
            content, given["content-type"] = json.dumps(body).encode(), "application/json"
        if chunks is None and (content or method not in ("GET", "HEAD", "OPTIONS", "DELETE")):
            given["content-length"] = str(len(content))
        if chunks is not None:
            given |= {"transfer-encoding": "chunked", "content-type": "application/json"}
        given |= {name.lower(): value for name, value in (headers or {}).items()}
        parts = list(chunks if chunks is not None else [content])
        sent: list[Mapping[str, Any]] = []
        forever = asyncio.Event()

        async def receive() -> dict[str, Any]:
            if parts:
                chunk = parts.pop(0)
                return {"type": "http.request", "body": chunk, "more_body": bool(parts) or stall}
            await (hang_up or forever).wait()
            return {"type": "http.disconnect"}

        async def send(message: Mapping[str, Any]) -> None:
            sent.append(message)

        from urllib.parse import unquote

        raw, _, query = path.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(raw),
            "raw_path": raw.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(n.encode(), v.encode("latin-1")) for n, v in given.items() if v is not None],
            "client": (client, 50_000),
            "server": ("127.0.0.1", 8000),
            "state": {},
        }
        await self.app(scope, receive, send)
        if not sent:
            return Answer(0, {}, b"")
        found: dict[str, str] = {}
        for name, value in sent[0]["headers"]:
            found[name.decode().lower()] = value.decode("latin-1")
        return Answer(sent[0]["status"], found, b"".join(m.get("body", b"") for m in sent[1:]))

    def together(self, *requests: Any) -> list[Answer]:
        """Send several requests, made by `send`, at once."""

        async def gather() -> list[Answer]:
            return await asyncio.gather(*requests)

        answers: list[Answer] = self.run(gather())
        return answers


def png(color: tuple[int, int, int] = (200, 10, 10), size: tuple[int, int] = (40, 30)) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", size, color).save(out, "PNG")
    return out.getvalue()


def multipart(request: Any, files: Mapping[str, bytes]) -> tuple[bytes, dict[str, str]]:
    """Return a body and its headers."""
    content = request if isinstance(request, bytes) else json.dumps(request).encode()
    lines = []
    for name, data in {"request": content, **files}.items():
        head = f'--limit\r\nContent-Disposition: form-data; name="{name}"; filename="x"\r\n\r\n'
        lines.append(head.encode() + data + b"\r\n")
    return b"".join(lines) + b"--limit--\r\n", {
        "content-type": "multipart/form-data; boundary=limit",
        "x-unialign": "1",
    }


def make_space() -> ua.Space:
    encoders = {
        "text": create("builtin:chars?dim=32", device="cpu"),
        "image": create("builtin:conv?size=32", device="cpu"),
        "audio": create("builtin:logmel", device="cpu"),
    }
    torch.manual_seed(1)
    space = ua.Space({name: encoder.dim for name, encoder in encoders.items()}, dim=DIM, hidden=16).eval()
    return space.with_encoders(encoders)


def fill(index: ua.Index) -> ua.Index:
    """Add items: all have a text, two of three an image, one of three a sound; keys are not only ASCII."""
    rng = np.random.default_rng(0)
    rows = {name: rng.normal(size=(ITEMS, DIM)).astype(np.float32) for name in index.modalities}
    rows = {name: z / np.linalg.norm(z, axis=1, keepdims=True) for name, z in rows.items()}
    number = np.arange(ITEMS)
    index.add(
        rows,
        present={"text": number >= 0, "image": number % 3 > 0, "audio": number % 3 == 0},
        keys=[KEYS.get(i, f"item-{i}") for i in range(ITEMS)],
        labels=["even" if i % 2 == 0 else "odd" for i in range(ITEMS)],
        metadata=[{"number": i, "shop": "=1+1"} for i in range(ITEMS)],
        previews=[
            {"text": ("text/plain; charset=utf-8", f"<b>text {i}</b>".encode())}
            | ({"image": ("image/png", png((i, 0, 0), (300, 200)))} if i % 3 else {})
            for i in range(ITEMS)
        ],
    )
    return index


KEYS = {0: "a/b", 1: "Igel äöü 刺猬", 2: "100%", 3: "..", 4: "?x=1#y"}
