"""Implementation of `--quiet`: print only warnings and errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

_enabled = False


@contextmanager
def quiet(enabled: bool) -> Iterator[None]:
    global _enabled
    before, _enabled = _enabled, enabled
    try:
        yield
    finally:
        _enabled = before


def is_quiet() -> bool:
    return _enabled


def progress_mode() -> Literal["auto", "none"]:
    return "none" if _enabled else "auto"
