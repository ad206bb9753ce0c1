"""Run functions in forked child processes, and kill them after a given time or at a chosen file operation."""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["Child", "count_operations", "die_at", "run_child"]

# Audit events of operations that change files; `_on_every_operation` adds `os.fsync`, which has no audit event.
_CHANGES = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir")


class Child:
    def __init__(self, killed: bool, sent: str) -> None:
        self.killed = killed
        self.lines = sent[: sent.rfind("\n") + 1].splitlines()


def run_child(work: Callable[[Callable[[str], None]], None], *, kill_after: float | None = None) -> Child:
    """Run `work(send)` in a child process and kill it after the given seconds; raise SystemExit if the child fails."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            # Write without a buffer, so that lines sent just before a kill arrive.
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
    """Kill this process at the given file operation in `folder`, counted from 0.

    The kill comes before a rename or removal, after an open (so that the file is empty), or at an fsync after half of
    the file has been cut off.
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
    count = [0]

    def act(handle: int | None) -> None:
        count[0] += 1

    _on_every_operation(folder, act)
    return count


def _on_every_operation(folder: Path, act: Callable[[int | None], None]) -> None:
    fsync = os.fsync

    def watched_fsync(handle: int) -> None:
        is_folder = os.path.isdir(f"/proc/self/fd/{handle}")
        act(None if is_folder else handle)
        fsync(handle)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _CHANGES or not str(arguments[0]).startswith(str(folder)):
            return
        # The arguments are (path, mode, flags). Files opened for reading do not change.
        if event == "open" and not int(arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
            return
        act(None)

    os.fsync = watched_fsync
    sys.addaudithook(hook)
