"""Readers-writer lock of an index: searches share it, and a change has exclusive access."""

import contextlib
import threading
import time
from collections.abc import Iterator

from unialign.index import Index
from unialign.serve._errors import ApiError

__all__ = ["Guard"]

# Minimum seconds between checks for commits of another process.
_REFRESH_SECONDS = 1.0


class Guard:
    """Lock that searches share. A change waits until they end, and later searches wait for the change."""

    def __init__(self, index: Index, wait_seconds: float, *, writable: bool) -> None:
        self._index, self._wait, self._writable = index, wait_seconds, writable
        self._condition = threading.Condition()
        self._readers = 0
        self._writers = 0
        self._is_writing = False
        self._refreshed = time.monotonic()

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Acquire shared access, after showing the last commit of another process."""
        if not self._writable and self._index.path is not None:
            self._refresh()
        with self._condition:
            self._condition.wait_for(lambda: not self._is_writing and not self._writers)
            self._readers += 1
        try:
            yield
        finally:
            with self._condition:
                self._readers -= 1
                self._condition.notify_all()

    @contextlib.contextmanager
    def writing(self, *, wait: float | None = None) -> Iterator[None]:
        """Acquire exclusive access; raise ApiError 423 on a timeout."""
        with self._condition:
            self._writers += 1
            try:
                free = self._condition.wait_for(
                    lambda: not self._is_writing and not self._readers, self._wait if wait is None else wait
                )
                if not free:
                    raise ApiError(423, "locked", "another change of the index is in progress", retry_after=1)
                self._is_writing = True
            finally:
                self._writers -= 1
                self._condition.notify_all()
        try:
            yield
        finally:
            with self._condition:
                self._is_writing = False
                self._condition.notify_all()

    def _refresh(self) -> None:
        if time.monotonic() - self._refreshed < _REFRESH_SECONDS:
            return
        self._refreshed = time.monotonic()
        with contextlib.suppress(ApiError), self.writing(wait=0.1):
            self._index.refresh()
