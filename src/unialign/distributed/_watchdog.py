"""End a job if a process fails or dies, with an error on every other process that names the failed process.

Each process writes a heartbeat once per second to a small store on process 0, which reads all heartbeats. Every other
process reads only the heartbeat of process 0 and the first recorded failure.
"""

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from unialign.distributed._failures import first_line, is_of_the_transport
from unialign.distributed._rendezvous import rendezvous
from unialign.errors import DistributedError

_BEAT = 1.0
# Seconds without a heartbeat after which a process is considered dead: longer than any call should hold the GIL, and
# short enough that all delays together stay below 30 seconds.
_SILENCE = 15.0
# Shorter limit after a failed collective, which makes a dead process likely.
_SILENCE_SUSPECT = 4.0
_GRACE = 5.0
_NONE = "-"
_active: list["Watchdog"] = []


def watchdog_is_running() -> bool:
    """Return whether the watchdog runs: the same on all processes, since they enter and leave `init` together."""
    return bool(_active)


@contextmanager
def watching(watch: "Watchdog") -> Iterator[None]:
    """Replace the error of a collective by that of another process that failed."""
    _active.append(watch)
    try:
        yield
    except BaseException as error:
        if isinstance(error, SystemExit) and error.code in (None, 0):
            watch.leave()
            raise
        named = watch.fail(error)
        if named is None:
            raise
        raise DistributedError(named) from error
    else:
        watch.leave()
    finally:
        _active.remove(watch)


class Watchdog:
    def __init__(self, addresses: Sequence[str], *, timeout: float) -> None:
        self.rank, self.processes = dist.get_rank(), dist.get_world_size()
        self.failure: str | None = None
        self._last_beat = time.monotonic()
        self._beat = "0"
        self._left = threading.Event()
        self._reported = threading.Event()
        self._store = rendezvous(addresses, timeout=timeout, prepare=self._prepare)
        self._thread = threading.Thread(target=self._run, name="unialign-watchdog", daemon=True)
        self._thread.start()

    def fail(self, error: BaseException) -> str | None:
        """Return the failure of another process that caused this failure, else None."""
        lost = is_of_the_transport(error)
        if lost:
            with suppress(RuntimeError):
                self._store.set("suspect", "1")
            self._reported.wait(_SILENCE_SUSPECT + 4 * _BEAT)
        found = self.failure
        if found is None:
            with suppress(RuntimeError):  # there is no store if process 0 has ended
                self._store.compare_set("failure", _NONE, self._own_failure(error))
            self._reported.wait(3 * _BEAT)
        if self.rank == 0:
            self._wait_until_reported()
        self._left.set()
        return found if lost else None

    def leave(self) -> None:
        """Process 0 waits until all processes have left, since it hosts the store."""
        with suppress(RuntimeError):
            self._store.set(f"beat/{self.rank}", "left")
            self._store.add("left", 1)
        if self.rank != 0:
            self._left.set()
            return
        while self._store.add("left", 0) < self.processes and not self._reported.is_set():
            time.sleep(0.02)
        self._left.set()
        if self.failure is not None:
            self._wait_until_reported()
            raise DistributedError(self.failure)

    def _prepare(self, store: TCPStore) -> None:
        store.set(f"beat/{self.rank}", "0")
        store.set(f"host/{self.rank}", socket.gethostname())
        if self.rank == 0:
            store.set("failure", _NONE)
            store.set("suspect", _NONE)

    def _own_failure(self, error: BaseException) -> str:
        text = " ".join(f"{type(error).__name__}: {error}".split())[:2000]
        how = "was stopped" if isinstance(error, KeyboardInterrupt | SystemExit) else "failed"
        return f"process {self.rank} of {self.processes} on {socket.gethostname()} {how}: {text}"

    def _run(self) -> None:
        beats = dict.fromkeys(range(self.processes) if self.rank == 0 else (0,), "")
        changed = dict.fromkeys(beats, time.monotonic())
        count, reported = 0, False
        while not self._left.wait(_BEAT):
            count += 1
            try:
                found = self._beat_and_read(count, beats, changed)
            except RuntimeError as error:
                if self._left.is_set():
                    return
                found = f"process 0 of {self.processes} ended or cannot be reached ({first_line(error)})"
            except Exception as error:
                # Keep this thread alive: without heartbeats, other processes would consider this process dead.
                if not reported:
                    text = f"{type(error).__name__}: {first_line(error)}"
                    message = f"unialign: the watchdog of process {self.rank} continues after {text}"
                    print(message, file=sys.stderr, flush=True)
                reported, found = True, None
            if found is not None:
                self._report(found)
                return

    def _beat_and_read(self, count: int, beats: dict[int, str], changed: dict[int, float]) -> str | None:
        # `compare_set` writes no heartbeat if this process has left.
        there = self._store.compare_set(f"beat/{self.rank}", self._beat, str(count)).decode()
        if there != "left":
            self._beat = there  # use the stored value, since an interrupted call may have changed it
        keys = ["failure", "suspect", *(f"beat/{rank}" for rank in beats)]
        failure, suspect, *values = (value.decode() for value in self._store.multi_get(keys))
        if failure != _NONE:
            return str(failure)
        now = time.monotonic()
        if now - self._last_beat > 3 * _BEAT:
            # This process was suspended, possibly with the whole job, so give the others time to resume.
            changed.update(dict.fromkeys(changed, now))
        self._last_beat = now
        limit = _SILENCE if suspect == _NONE else _SILENCE_SUSPECT
        for rank, value in zip(list(beats), values, strict=True):
            if value != beats[rank]:
                beats[rank], changed[rank] = value, now
            elif value != "left" and rank != self.rank and now - changed[rank] > limit:
                host = self._store.get(f"host/{rank}").decode()
                silent = f"process {rank} of {self.processes} on {host} ended without an error"
                silent += f" (no heartbeat for {now - changed[rank]:.0f} s; killed, or out of memory?)"
                return str(self._store.compare_set("failure", _NONE, silent).decode())
        return None

    def _report(self, failure: str) -> None:
        """Kill this process unless its main thread exits in time."""
        own = failure.startswith(f"process {self.rank} of ")
        self.failure = None if own else failure
        with suppress(RuntimeError):
            self._store.add("reported", 1)
        self._reported.set()
        if own:
            return
        print(f"unialign: {failure}; process {self.rank} also ends", file=sys.stderr, flush=True)
        if not self._left.wait(_GRACE):
            os._exit(1)

    def _wait_until_reported(self) -> None:
        """Keep the store on process 0 alive until all processes have read the failure."""
        end = time.monotonic() + 3 * _BEAT
        while self._store.add("reported", 0) < self.processes and time.monotonic() < end:
            time.sleep(0.02)
