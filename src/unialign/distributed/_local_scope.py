"""Code that one process runs by itself in the middle of a job: a callback, a measurement."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["in_local_scope", "local_scope"]

_alone: ContextVar[bool] = ContextVar("unialign_alone", default=False)


@contextmanager
def local_scope() -> Iterator[None]:
    """In the body `group="auto"` means this process: it would wait for the others in vain."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def in_local_scope() -> bool:
    return _alone.get()
