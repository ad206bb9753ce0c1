"""Drive the page of the service in Chromium. Test files import the fixtures they use."""

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unialign as ua
from serve_support import DIM, fill, make_space

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
]
# Names that a page must show as they are.
HTML_KEY = "<img src=x onerror=document.title='broken'>"
RIGHT_TO_LEFT, CJK = "قنفذ صغير", "小刺猬"
KEYS = [HTML_KEY, RIGHT_TO_LEFT, CJK]


class Live:
    """The service in a thread, on a port of the loopback; it can be stopped and started again."""

    def __init__(self, make_app: Callable[[], Any]) -> None:
        self.make_app = make_app
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        import uvicorn

        self._server = uvicorn.Server(
            uvicorn.Config(
                self.make_app(),
                host="127.0.0.1",
                port=self.port,
                log_level="error",
                timeout_graceful_shutdown=1,
                ws="none",
            )
        )
        self._thread = threading.Thread(target=asyncio.run, args=(self._server.serve(),), daemon=True)
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            self._thread.join(0.02)
        assert self._server.started

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)


@pytest.fixture(scope="session")
def page_index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ua.Index]:
    """An index with pictures, texts and sounds, and names in several scripts."""
    with ua.Index.create(tmp_path_factory.mktemp("page") / "index", space=make_space()) as index:
        fill(index)
        z = np.random.default_rng(5).normal(size=(len(KEYS), DIM)).astype(np.float32)
        z /= np.linalg.norm(z, axis=1, keepdims=True)
        texts = [{"text": ("text/plain; charset=utf-8", key.encode())} for key in KEYS]
        index.add({"text": z}, keys=KEYS, labels=["names"] * len(KEYS), previews=texts)
        yield index


@pytest.fixture(scope="session")
def live(page_index: ua.Index) -> Iterator[Live]:
    """The service of `page_index`."""
    served = Live(lambda: ua.serve.app({"things": page_index}, burst=0, connections=0))
    yield served
    served.stop()


@pytest.fixture
def page(chromium: Any, live: Live) -> Iterator[Any]:
    """A fresh page; console errors, violations of the content policy and foreign requests fail the test.

    A test that provokes errors empties `page.problems`.
    """
    context = chromium.new_context(viewport={"width": 1100, "height": 800}, permissions=["microphone"])
    context.set_default_timeout(10_000)
    made = context.new_page()
    made.problems = []
    made.on("console", lambda one: made.problems.append(one.text) if one.type in ("error", "warning") else None)
    made.on("pageerror", lambda error: made.problems.append(str(error)))
    made.on(
        "request",
        lambda one: made.problems.append(one.url) if not one.url.startswith((live.url, "blob:", "data:")) else None,
    )
    yield made
    problems = list(made.problems)
    context.close()
    if problems:
        pytest.fail(f"the page reports {problems}")


def find_axe() -> Path | None:
    """Return `axe.min.js` of an installed npm package axe-core, or None; `AXE` names its folder."""
    folders = [os.environ.get("AXE", ""), "node_modules/axe-core", "/usr/share/javascript/axe-core"]
    for folder in filter(None, folders):
        if (file := Path(folder) / "axe.min.js").is_file():
            return file
    return None


def violations(page: Any, axe: Path) -> list[str]:
    """Run axe-core; return serious and critical violations."""
    page.evaluate(axe.read_text())
    found = page.evaluate("axe.run({resultTypes: ['violations']}).then((result) => result.violations)")
    serious = ("moderate", "serious", "critical")
    return [f"{one['id']}: {one['nodes'][0]['html']}" for one in found if one["impact"] in serious]


def wait_until(page: Any, expression: str, seconds: float = 10.0) -> None:
    """Wait until an expression is true; `page.wait_for_function` would need `unsafe-eval`."""
    ends = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < ends, expression
        page.wait_for_timeout(30)
