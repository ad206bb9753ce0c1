import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def edited() -> Callable[[Path, Callable[[dict[str, Any]], None]], dict[str, Any]]:
    def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        path = folder / "results.json"
        results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        change(results)
        path.write_text(json.dumps(results), encoding="utf-8")
        return results

    return edit
