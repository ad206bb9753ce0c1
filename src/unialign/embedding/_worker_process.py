"""Start and stop one worker process, and exchange messages with it.

Processes are started as `python -c` rather than by `multiprocessing`, which would run the script of the caller again.
"""

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

from unialign.embedding._arena import Arena, StatusBoard, anonymous_file
from unialign.embedding._worker import Crashed, TaskMessage

__all__ = ["ARENAS", "Event", "Seat"]

# Batches in flight of a worker.
ARENAS = 4
_GRACE = 5.0


class Event(NamedTuple):
    seat: int
    message: Any


class Seat:
    """Shared memory of a worker, and its current process. Arenas are kept if the process is replaced."""

    def __init__(self, number: int, columns: bytes, events: "queue.SimpleQueue[Event]") -> None:
        self.number, self.free = number, list(range(ARENAS))
        self._columns, self._events = columns, events
        self._handles: list[int] = []
        try:
            for size in (StatusBoard.SIZE, *[0] * ARENAS):
                self._handles.append(anonymous_file(size))
        except OSError:
            self._close_handles()
            raise
        self.status = StatusBoard(self._handles[0])
        self.arenas = [Arena(handle) for handle in self._handles[1:]]
        self._process: subprocess.Popen[bytes] | None = None
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def start(self) -> None:
        """Start a process; the current one, if any, must have ended."""
        if self._process is not None:
            self._outbox.put(None)
        self.status.clear()
        task_read, task_write = os.pipe()
        result_read, result_write = os.pipe()
        handles = (task_read, result_write, *self._handles)
        code = (
            f"import sys; sys.path[:] = {[os.path.abspath(entry) for entry in sys.path]!r}; "
            f"from unialign.embedding._worker import main; main({[str(os.getpid()), *map(str, handles)]!r})"
        )
        try:
            with _signals_blocked():
                self._process = subprocess.Popen(
                    [sys.executable, "-c", code],
                    stdin=subprocess.DEVNULL,
                    pass_fds=handles,
                    env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
                )
        except BaseException:
            os.close(task_write)
            os.close(result_read)
            raise
        finally:
            os.close(task_read)
            os.close(result_write)
        self._outbox = queue.SimpleQueue()
        self._outbox.put(self._columns)
        # Writing to a full pipe waits for the process, which may be stuck.
        threading.Thread(target=_feed, args=(self._outbox, task_write), daemon=True).start()
        threading.Thread(
            target=_forward, args=(self.number, self._process, result_read, self._events), daemon=True
        ).start()

    def submit(self, task: TaskMessage) -> None:
        self._outbox.put(pickle.dumps(task))

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """Kill the process; a `Crashed` event follows."""
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        if self._process is not None:
            self._outbox.put(None)
            try:
                self._process.wait(_GRACE if self.status.read() is None else 0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._close_handles()

    def _close_handles(self) -> None:
        for handle in self._handles:
            os.close(handle)


def _feed(outbox: "queue.SimpleQueue[bytes | None]", handle: int) -> None:
    # If the process has ended, an event reports it.
    with contextlib.suppress(OSError), os.fdopen(handle, "wb") as tasks:
        while (data := outbox.get()) is not None:
            tasks.write(data)
            tasks.flush()


def _forward(number: int, process: "subprocess.Popen[bytes]", handle: int, events: "queue.SimpleQueue[Event]") -> None:
    with os.fdopen(handle, "rb") as results:
        while True:
            try:
                events.put(Event(number, pickle.load(results)))
            except Exception:  # the end of the pipe, or a message that was cut off
                break
    events.put(Event(number, Crashed(process.wait())))


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block signals while the process starts, so that the main process can finish its part after a signal to the
    group.
    """
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
