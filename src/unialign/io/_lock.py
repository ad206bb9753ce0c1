"""Lock a folder against concurrent writers."""

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from unialign.errors import ConfigError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK_FILE = ".lock"


@contextmanager
def lock_folder(path: Path, *, doing: str) -> Iterator[None]:
    """Hold the lock file `.lock` of an existing folder; raise ConfigError if another process holds the lock. `doing` is
    the activity in the message, such as `training`.
    """
    # Do not use a thread-local lock, since a signal handler or another thread may exit the context.
    lock = FileLock(path / LOCK_FILE, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise ConfigError(
            f"another run is {doing} in {path}, and the two runs would overwrite each other's files; choose "
            f"another folder, or wait until the other run ends"
        ) from None
    except NotImplementedError:
        yield
        return
    try:
        yield
    finally:
        lock.release()


@contextmanager
def wait_for_folder(path: Path) -> Iterator[None]:
    """Hold the lock of a folder for the block. On POSIX systems, the folder itself is locked, so no lock file remains.
    A thread must not take the lock of a folder twice.
    """
    if fcntl is None:
        # On Windows, filelock deletes the lock file.
        with FileLock(path / f"{LOCK_FILE}.saving", thread_local=False):
            yield
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        # A child process that was forked in the block has a copy of the handle, so closing it is not sufficient.
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)
        os.close(handle)
