"""Define a space of four modalities that is saved with three encoders, for tests with other libraries."""

from pathlib import Path

import numpy as np
import pytest

import tiny_towers
from unialign.space import Space


@pytest.fixture(scope="session")
def space() -> Space:
    return tiny_towers.make_space()


@pytest.fixture(scope="session")
def folder(space: Space, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("everywhere") / "my-space"
    space.save_pretrained(path, format="sentence-transformers", encoders=tiny_towers.towers())
    return path


@pytest.fixture(scope="session")
def vectors(space: Space) -> dict[str, np.ndarray]:
    return {kind: space.encode({kind: tiny_towers.features(kind)})[kind].numpy() for kind in tiny_towers.DIMS}
