"""`--quiet`: commands print warnings and errors only."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

_enabled = False


@contextmanager
def quiet(enabled: bool) -> Iterator[None]:
    """Suppress the output and the progress of a command inside the context, if enabled."""
    global _enabled
    before, _enabled = _enabled, enabled
    try:
        yield
    finally:
        _enabled = before


def is_quiet() -> bool:
    """Return whether only warnings and errors are printed."""
    return _enabled


def progress_mode() -> Literal["auto", "none"]:
    """Return how a training shows its progress."""
    return "none" if _enabled else "auto"
