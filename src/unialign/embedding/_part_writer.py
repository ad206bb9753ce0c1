"""Write part files in a thread, while the next part is encoded."""

import queue
import threading
from types import TracebackType

from unialign.embedding._work_folder import WorkFolder
from unialign.errors import DataError

__all__ = ["PartWriter"]

# Parts in memory that wait to be written.
_WAITING = 2
_PARTS_PER_SYNC = 16


class PartWriter:
    """On exit, all parts are on the disk. Errors are raised at the next call or on exit."""

    def __init__(self, folder: WorkFolder) -> None:
        self._folder, self._written = folder, 0
        self._queue: queue.Queue[tuple[str, int, bytes] | None] = queue.Queue(_WAITING)
        self._error: BaseException | None = None
        self._unsynced: set[str] = set()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> "PartWriter":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.put(None)
        self._thread.join()
        if kind is None:
            self._check()

    def put(self, column: str, number: int, data: bytes) -> None:
        self._check()
        self._queue.put((column, number, data))

    def _check(self) -> None:
        if isinstance(self._error, OSError):
            reason = self._error.strerror or str(self._error)
            raise DataError(
                f"cannot write a part in {self._folder.path}: {reason}; finished parts are kept: free space or make "
                "the folder writable, and repeat the call to continue"
            ) from self._error
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while (task := self._queue.get()) is not None:
            if self._error is None:
                try:
                    self._write(*task)
                except BaseException as error:  # the caller would wait forever if the thread ended
                    self._error = error
        if self._error is None:
            try:
                self._sync()
            except BaseException as error:
                self._error = error

    def _write(self, column: str, number: int, data: bytes) -> None:
        self._folder.write_part(column, number, data)
        self._written += 1
        self._unsynced.add(column)
        if self._written % _PARTS_PER_SYNC == 0:
            self._sync()

    def _sync(self) -> None:
        for column in sorted(self._unsynced):
            self._folder.sync_parts(column)
        self._unsynced.clear()
