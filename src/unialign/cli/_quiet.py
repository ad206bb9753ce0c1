"""Implementation of `--quiet`: print only warnings and errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

_enabled = False


@contextmanager
def quiet(enabled: bool) -> Iterator[None]:
    """Suppress the output and progress display of commands inside the context if `enabled` is True."""
    global _enabled
    before, _enabled = _enabled, enabled
    try:
        yield
    finally:
        _enabled = before


def is_quiet() -> bool:
    """Return whether `--quiet` is in effect."""
    return _enabled


def progress_mode() -> Literal["auto", "none"]:
    """Return the `progress` argument for `fit` and `train_decoder`."""
    return "none" if _enabled else "auto"
