"""Run work in forked children that SIGKILL ends after a given time or at a chosen file operation.

Children are forked so that torch is imported only once. Fork from a process without threads.
"""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["Child", "count_operations", "die_at", "run_child"]

# Audit events of operations that change a folder; `_on_every_operation` adds `os.fsync`.
_CHANGES = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir")


class Child:
    """The result of a child process.

    Attributes:
        killed: whether it died by SIGKILL.
        lines: complete lines that it sent.
    """

    def __init__(self, killed: bool, sent: str) -> None:
        self.killed = killed
        self.lines = sent[: sent.rfind("\n") + 1].splitlines()


def run_child(work: Callable[[Callable[[str], None]], None], *, kill_after: float | None = None) -> Child:
    """Run `work(send)` in a child, which is killed after the given seconds; an error in the child ends this process."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            # Unbuffered, so that lines arrive even if they are sent just before a kill.
            work(lambda text: (os.write(writer, f"{text}\n".encode()), None)[1])
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    os.close(writer)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    with os.fdopen(reader, "rb") as pipe:
        sent = pipe.read().decode()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in (0, -signal.SIGKILL):
        raise SystemExit(f"a child failed with {status}; it sent: {sent}")
    return Child(status != 0, sent)


def die_at(folder: Path, operation: int) -> None:
    """Kill this process at its n-th operation (from 0) on files in `folder`.

    It is killed before a rename or removal, after an open (the file is empty), or at an fsync, after half of the file
    is cut off.
    """
    left = [operation]

    def act(handle: int | None) -> None:
        if left[0] == 0:
            if handle is not None:
                os.ftruncate(handle, os.fstat(handle).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1

    _on_every_operation(folder, act)


def count_operations(folder: Path) -> list[int]:
    """Return a list whose single number counts the operations of this process in `folder` from now on."""
    count = [0]

    def act(handle: int | None) -> None:
        count[0] += 1

    _on_every_operation(folder, act)
    return count


def _on_every_operation(folder: Path, act: Callable[[int | None], None]) -> None:
    """Call `act` at each operation; at an fsync of a regular file, pass it the file handle. This cannot be undone."""
    fsync = os.fsync

    def watched_fsync(handle: int) -> None:
        is_folder = os.path.isdir(f"/proc/self/fd/{handle}")
        act(None if is_folder else handle)
        fsync(handle)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _CHANGES or not str(arguments[0]).startswith(str(folder)):
            return
        # (path, mode, flags): skip files opened for reading, which change nothing.
        if event == "open" and not int(arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
            return
        act(None)

    os.fsync = watched_fsync
    sys.addaudithook(hook)
