"""Run code on one process of a job alone: a callback, a measurement."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["in_local_scope", "local_scope"]

_local: ContextVar[bool] = ContextVar("unialign_local", default=False)


@contextmanager
def local_scope() -> Iterator[None]:
    """In the body `group="auto"` means this process alone, since it would wait for the others forever."""
    token = _local.set(True)
    try:
        yield
    finally:
        _local.reset(token)


def in_local_scope() -> bool:
    return _local.get()
