"""Code that one process runs by itself in the middle of a job: a callback, a measurement."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["alone", "is_alone"]

_alone: ContextVar[bool] = ContextVar("unialign_alone", default=False)


@contextmanager
def alone() -> Iterator[None]:
    """In the body `group="auto"` means this process: it would wait for the others in vain."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def is_alone() -> bool:
    return _alone.get()
