"""Define the pool of processes that all tests in this folder share."""

from collections.abc import Iterator

import pytest

from processes import Pool


@pytest.fixture(scope="session")
def pool() -> Iterator[Pool]:
    made = Pool()
    yield made
    made.close()
