"""A process that fails or dies ends the job, and every other one says which it was.

Each process beats once a second in a small store that process 0 keeps, apart from the store and the backend of the
collectives. Process 0 reads all beats, the others its own and the first failure that anyone wrote down: one request a
second each. A process that dies cannot write: its beat stops.
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

__all__ = ["Watchdog", "being_watched", "watching"]

_BEAT = 1.0
# Longer than any call that keeps Python's lock should take; with the rest it stays below half a minute.
_SILENCE = 15.0
# Where a collective has failed already, a silent process is dead.
_SILENCE_SUSPECT = 4.0
_GRACE = 5.0
_NOTHING = "-"
_active: list["Watchdog"] = []


def being_watched() -> bool:
    """Whether this process is in a job that is watched over already.

    All processes must answer alike: they enter and leave `start` together. One that left it by an error ends the job.
    """
    return bool(_active)


@contextmanager
def watching(watch: "Watchdog") -> Iterator[None]:
    """Watch over the processes of the default group while the body runs.

    Raises:
        DistributedError: a collective failed here because another process did; the message names that one.
    """
    _active.append(watch)
    try:
        with _watched(watch):
            yield
    finally:
        _active.remove(watch)


@contextmanager
def _watched(watch: "Watchdog") -> Iterator[None]:
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


class Watchdog:
    """One process's part in it, from the moment when all have met.

    Args:
        addresses: where process 0 can be reached; the first one that works is taken.
        timeout: seconds to wait for a process that has not come yet.

    Raises:
        DistributedError: on every process, if they do not meet.
    """

    def __init__(self, addresses: Sequence[str], *, timeout: float) -> None:
        self.rank, self.processes = dist.get_rank(), dist.get_world_size()
        self.failure: str | None = None
        self._looked = time.monotonic()
        self._beat = "0"
        self._left = threading.Event()
        self._told = threading.Event()
        self._store = rendezvous(addresses, timeout=timeout, prepare=self._prepare)
        self._thread = threading.Thread(target=self._run, name="unialign-watch", daemon=True)
        self._thread.start()

    def fail(self, error: BaseException) -> str | None:
        """Write down why this process leaves; the failure of another process, where it was that one's."""
        lost = is_of_the_transport(error)
        if lost:
            with suppress(RuntimeError):
                self._store.set("suspect", "1")
            self._told.wait(_SILENCE_SUSPECT + 4 * _BEAT)
        found = self.failure
        if found is None:
            with suppress(RuntimeError):  # without process 0 nobody can be told
                self._store.compare_set("failure", _NOTHING, self._own_failure(error))
            self._told.wait(3 * _BEAT)
        if self.rank == 0:
            self._wait_until_told()
        self._left.set()
        return found if lost else None

    def leave(self) -> None:
        """End without a failure. Process 0 stays until all have left, since it keeps the store."""
        with suppress(RuntimeError):
            self._store.set(f"beat/{self.rank}", "left")
            self._store.add("left", 1)
        if self.rank != 0:
            self._left.set()
            return
        while self._store.add("left", 0) < self.processes and not self._told.is_set():
            time.sleep(0.02)
        self._left.set()
        if self.failure is not None:
            self._wait_until_told()
            raise DistributedError(self.failure)

    def _prepare(self, store: TCPStore) -> None:
        store.set(f"beat/{self.rank}", "0")
        store.set(f"host/{self.rank}", socket.gethostname())
        if self.rank == 0:
            store.set("failure", _NOTHING)
            store.set("suspect", _NOTHING)

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
                found = self._look(count, beats, changed)
            except RuntimeError as error:
                if self._left.is_set():
                    return
                found = f"process 0 of {self.processes} ended or cannot be reached ({first_line(error)})"
            except Exception as error:
                # A thread that ends here would have this process, which is well, declared dead.
                if not reported:
                    text = f"{type(error).__name__}: {first_line(error)}"
                    print(
                        f"unialign: the watch of process {self.rank} goes on after {text}", file=sys.stderr, flush=True
                    )
                reported, found = True, None
            if found is not None:
                self._tell(found)
                return

    def _look(self, count: int, beats: dict[int, str], changed: dict[int, float]) -> str | None:
        """One beat of this process, and the failure of another one if there is any."""
        # What has left does not beat again.
        there = self._store.compare_set(f"beat/{self.rank}", self._beat, str(count)).decode()
        if there != "left":
            self._beat = there  # whatever an interrupted look left: the next beat starts from it
        keys = ["failure", "suspect", *(f"beat/{rank}" for rank in beats)]
        failure, suspect, *values = (value.decode() for value in self._store.multi_get(keys))
        if failure != _NOTHING:
            return str(failure)
        now = time.monotonic()
        if now - self._looked > 3 * _BEAT:
            # This process was suspended, as a whole job may be: the others get the time to wake up as well.
            changed.update(dict.fromkeys(changed, now))
        self._looked = now
        limit = _SILENCE if suspect == _NOTHING else _SILENCE_SUSPECT
        for rank, value in zip(list(beats), values, strict=True):
            if value != beats[rank]:
                beats[rank], changed[rank] = value, now
            elif value != "left" and rank != self.rank and now - changed[rank] > limit:
                host = self._store.get(f"host/{rank}").decode()
                silent = f"process {rank} of {self.processes} on {host} ended without a word"
                silent += f" (no sign of life for {now - changed[rank]:.0f} s; killed, or out of memory?)"
                return str(self._store.compare_set("failure", _NOTHING, silent).decode())
        return None

    def _tell(self, failure: str) -> None:
        """Say who failed, and end this process unless its main thread does so by itself."""
        own = failure.startswith(f"process {self.rank} of ")
        self.failure = None if own else failure
        with suppress(RuntimeError):
            self._store.add("told", 1)
        self._told.set()
        if own:
            return
        print(f"unialign: {failure}; process {self.rank} ends too", file=sys.stderr, flush=True)
        if not self._left.wait(_GRACE):
            os._exit(1)

    def _wait_until_told(self) -> None:
        """Process 0 keeps the store until the others know, or a moment: the failed one does not count itself."""
        end = time.monotonic() + 3 * _BEAT
        while self._store.add("told", 0) < self.processes and time.monotonic() < end:
            time.sleep(0.02)
