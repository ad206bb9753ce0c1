"""Run code on a single process of a job, such as a callback or a measurement."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["in_local_scope", "local_scope"]

_local: ContextVar[bool] = ContextVar("unialign_local", default=False)


@contextmanager
def local_scope() -> Iterator[None]:
    """Make `group="auto"` mean this process only, since collectives would wait for the others forever."""
    token = _local.set(True)
    try:
        yield
    finally:
        _local.reset(token)


def in_local_scope() -> bool:
    return _local.get()
