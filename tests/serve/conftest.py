"""A small index with pictures and texts, and clients of apps that serve it."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import FLAGS

import unialign as ua
from serve_support import Client, fill, make_space


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ua.Index]:
    """An index that tests only read."""
    with ua.Index.create(tmp_path_factory.mktemp("serve") / "index", space=make_space()) as made:
        yield fill(made)


@pytest.fixture
def fresh_index(tmp_path: Path) -> Iterator[ua.Index]:
    """An index that a test changes."""
    with ua.Index.create(tmp_path / "index", space=make_space()) as made:
        yield fill(made)


@pytest.fixture
def client(index: ua.Index) -> Iterator[Callable[..., Client]]:
    """Return a client of an app with settings."""
    made: list[Client] = []

    def build(chosen: Any = None, **settings: Any) -> Client:
        settings = {"burst": 0, "connections": 0, **settings}
        made.append(Client(ua.serve.app(index if chosen is None else chosen, **settings)))
        return made[-1]

    yield build
    for one in made:
        one.close()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """Chromium; tests that need it are skipped with the reason if it is absent."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    with playwright.sync_playwright() as driver:
        try:
            browser = driver.chromium.launch(executable_path=path, args=FLAGS)
        except playwright.Error as error:
            pytest.skip(f"Chromium cannot be started: {str(error).splitlines()[0]}")
        yield browser
        browser.close()
