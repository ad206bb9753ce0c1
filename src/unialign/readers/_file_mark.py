"""Detect files that change while they are read."""

import os
from pathlib import Path

from unialign.errors import DataError

__all__ = ["check_unchanged", "file_mark"]


def file_mark(path: Path) -> tuple[int, int]:
    """Return the size and the modification time of a file."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}); check the path") from None
    return status.st_size, status.st_mtime_ns


def check_unchanged(path: Path, mark: tuple[int, int]) -> None:
    if file_mark(path) != mark:
        raise DataError(f"{path} changed while it was read; read it again when no other process is writing it")
