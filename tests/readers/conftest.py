"""Define a small space of two modalities, and a function that writes the space to files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from small_files import DIM, ITEMS, Space, write_files


@pytest.fixture(scope="session")
def space() -> Space:
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=(ITEMS, DIM)).astype(np.float32) for name in ("image", "text")}


@pytest.fixture
def write(space: Space, tmp_path: Path) -> Callable[[str], list[Path | str]]:
    return lambda kind: write_files(space, tmp_path, kind)
