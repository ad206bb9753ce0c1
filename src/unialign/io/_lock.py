"""Lock a folder against concurrent writers."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from unialign.errors import ConfigError

LOCK_FILE = ".lock"


@contextmanager
def lock_folder(path: Path, *, doing: str) -> Iterator[None]:
    """Hold the lock file `.lock` of an existing folder; no effect on file systems without lock support.

    Args:
        path: results folder, which must not be replaced as a whole while it is locked.
        doing: activity shown in the error message, such as `training`.

    Raises:
        ConfigError: another process holds the lock.
        OSError: a file system error.
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
