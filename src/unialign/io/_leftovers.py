"""Temporary files and folders that `atomic_directory` and `replace_file` leave if their process is killed."""

import re
import shutil
from pathlib import Path

__all__ = ["discard_leftovers", "is_leftover"]

_NAME = re.compile(r"\..+\.[0-9a-f]{12}\.(partial|old)")


def is_leftover(path: Path) -> bool:
    """Return whether a path has the name of a temporary file or folder."""
    return _NAME.fullmatch(path.name) is not None


def discard_leftovers(folder: Path) -> None:
    """Delete the leftovers in a folder; no other process may be writing there."""
    for entry in filter(is_leftover, list(folder.iterdir())):
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
