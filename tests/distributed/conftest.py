"""One pool of processes for all tests in this folder."""

from collections.abc import Iterator

import pytest

from processes import Pool


@pytest.fixture(scope="session")
def pool() -> Iterator[Pool]:
    made = Pool()
    yield made
    made.close()
