"""One pool of processes for all tests of this folder."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

for folder in ("losses", "train"):
    sys.path.insert(0, str(Path(__file__).parent.parent / folder))

from processes import Pool  # noqa: E402


@pytest.fixture(scope="session")
def pool() -> Iterator[Pool]:
    made = Pool()
    yield made
    made.close()
