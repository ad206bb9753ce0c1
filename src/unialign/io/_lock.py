"""One writer at a time in a folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unialign.errors import ConfigError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["lock_folder", "only_writer"]


def lock_folder(path: Path, *, doing: str) -> int | None:
    """A lock on a folder that ends with the process, whatever ends that; None where there are no such locks.

    Args:
        doing: what another process does that holds it, for the error: `training`.

    Returns:
        A file descriptor; closing it gives the folder free.

    Raises:
        ConfigError: another process holds it.
    """
    if fcntl is None:
        return None
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise ConfigError(
            f"another run is {doing} in {path} at this moment, and two would write over each other; choose another "
            f"folder, or wait for its end"
        ) from None
    except OSError:
        os.close(handle)
        return None
    return handle


@contextmanager
def only_writer(path: Path, *, doing: str) -> Iterator[None]:
    """`lock_folder` for the time of a block."""
    handle = lock_folder(path, doing=doing)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)
