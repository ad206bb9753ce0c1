"""Lock a folder against a second writer."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from unialign.errors import ConfigError

__all__ = ["LOCK_FILE", "lock_folder"]

LOCK_FILE = ".lock"


@contextmanager
def lock_folder(path: Path, *, doing: str) -> Iterator[None]:
    """Hold the lock `.lock` inside an existing folder for the duration of a block; it ends with the process at latest.

    Without effect on file systems that do not support locks.

    Args:
        path: a folder of this process's results; never one that is exchanged as a whole.
        doing: the work of another process that holds it, for the error: `training`.

    Raises:
        ConfigError: another process holds it.
        OSError: the file system failed.
    """
    # Not thread-local: a signal handler or a helper thread may end the block.
    lock = FileLock(path / LOCK_FILE, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise ConfigError(
            f"another run is {doing} in {path} at this moment, and two would write over each other; choose another "
            f"folder, or wait for its end"
        ) from None
    except NotImplementedError:
        yield
        return
    try:
        yield
    finally:
        lock.release()
