"""Worker processes that prepare batches in order. A decoder that hangs or crashes does not end the run."""

import contextlib
import io
import pickle
import queue
import signal
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from numpy.typing import NDArray

from unialign.embedding._arena import Position, Stage
from unialign.embedding._batch import BatchTask, PreparedBatch, unexpected_failure
from unialign.embedding._prepare import ColumnWork, PreparedCell
from unialign.embedding._worker import Crashed, Done, Failed, Ready, TaskMessage
from unialign.embedding._worker_process import Event, Seat
from unialign.errors import ConfigError, DataError, UniAlignError

__all__ = ["WorkerPool", "pickled_columns"]

_POLL_SECONDS = 0.5
# Additional time for the first cell of a column, for which modules are imported.
_IMPORT_SECONDS = 60.0
# Signals of the operating system or of a user, which are not caused by the data.
_KILLED = {getattr(signal, name) for name in ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)}


@dataclass
class _Open:
    """A task whose results have not been taken; `suspect` is the place of a cell at which a process hung or ended."""

    task: BatchTask
    found: dict[int, PreparedCell] = field(default_factory=dict)
    suspect: int | None = None
    tried: set[int] = field(default_factory=set)
    arena: tuple[Seat, int] | None = None

    @property
    def is_done(self) -> bool:
        return len(self.found) == len(self.task.cells)


class WorkerPool:
    """`seconds` is the longest time to read and decode a cell."""

    def __init__(self, columns: bytes, *, workers: int, seconds: float) -> None:
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._seconds = seconds
        # Tasks given to the process of each seat, in order.
        self._given: dict[int, deque[tuple[_Open, int]]] = {number: deque() for number in range(workers)}
        self._seats: list[Seat] = []
        with self._closed_on_error():
            for number in range(workers):
                self._seats.append(Seat(number, columns, self._events))
        self._ready: set[int] = set()
        self._timed_out: set[int] = set()
        self._waiting: deque[_Open] = deque()
        self._open: dict[int, _Open] = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def start(self) -> None:
        with self._closed_on_error():
            for seat in self._seats:
                seat.start()

    @contextlib.contextmanager
    def _closed_on_error(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError) as error:  # RuntimeError: there are too many threads
            self.close()
            raise ConfigError(
                f"the worker processes cannot be started ({getattr(error, 'strerror', None) or error}); use fewer "
                "workers, or workers=0"
            ) from None

    def close(self) -> None:
        for seat in self._seats:
            if self._given[seat.number]:
                seat.kill()
        for seat in self._seats:
            seat.close()

    def batches(self, tasks: Iterator[BatchTask]) -> Iterator[PreparedBatch]:
        """Yield batches in the order of the tasks; arrays are valid until the next batch is requested."""
        order: deque[_Open] = deque()
        rest = iter(tasks)
        while True:
            self._dispatch(rest, order)
            if not order:
                return
            if order[0].is_done:
                done = order.popleft()
                yield PreparedBatch(done.task, [done.found[place] for place in range(len(done.task.cells))])
                self._release(done)
                continue
            self._handle()

    def _dispatch(self, rest: Iterator[BatchTask], order: "deque[_Open]") -> None:
        """Assign tasks to the processes with the fewest tasks, while arenas are free."""
        while True:
            seat = min(self._seats, key=lambda seat: (not seat.free, len(self._given[seat.number])))
            if not seat.free:
                return
            if self._waiting:
                opened = self._waiting.popleft()
            else:
                task = next(rest, None)
                if task is None:
                    return
                opened = _Open(task)
                self._open[task.number] = opened
                order.append(opened)
            self._give(seat, opened)

    def _give(self, seat: Seat, opened: _Open) -> None:
        arena = seat.free.pop()
        places = [place for place in range(len(opened.task.cells)) if place not in opened.found]
        if opened.suspect is not None:
            places = [opened.suspect]
        cells = [(place, opened.task.cells[place], opened.task.seed(place)) for place in places]
        suspect = opened.suspect is not None
        seat.submit(TaskMessage(opened.task.number, opened.task.column, arena, cells, suspect))
        self._given[seat.number].append((opened, arena))

    def _release(self, done: _Open) -> None:
        del self._open[done.task.number]
        for outcome in done.found.values():
            outcome.arrays = None
        if done.arena is not None:
            seat, arena = done.arena
            seat.free.append(arena)

    def _handle(self) -> None:
        try:
            # A process may have ended while this one did something else.
            number, message = self._events.get_nowait()
        except queue.Empty:
            self._end_stuck()
            try:
                number, message = self._events.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                return
        seat = self._seats[number]
        if isinstance(message, Ready):
            self._ready.add(number)
        elif isinstance(message, Done):
            self._finish(seat, message)
        elif isinstance(message, Failed):
            raise self._failure(message)
        else:
            self._replace(seat, message)

    def _end_stuck(self) -> None:
        for seat in self._seats:
            position = seat.status.read()
            if position is None or seat.number in self._timed_out or not seat.is_running:
                continue
            if position.seconds > self._seconds + (_IMPORT_SECONDS if position.stage == Stage.FIRST_CELL else 0):
                self._timed_out.add(seat.number)
                seat.kill()

    def _finish(self, seat: Seat, done: Done) -> None:
        opened, arena = self._given[seat.number].popleft()
        arrays = seat.arenas[arena].read(done.layout, done.size)
        is_probe = opened.suspect is not None
        for place, outcome, found in zip(done.places, done.outcomes, arrays, strict=True):
            outcome.arrays = _copied(found) if is_probe else found
            opened.found[place] = outcome
        if not is_probe:
            opened.arena = (seat, arena)
            return
        # The other cells of the task need the arena.
        seat.free.append(arena)
        opened.suspect = None
        if not opened.is_done:
            self._waiting.appendleft(opened)

    def _replace(self, seat: Seat, crash: Crashed) -> None:
        """Start another process for the tasks of the old one; the cell that it processed is tried alone."""
        timed_out = seat.number in self._timed_out and crash.code == -signal.SIGKILL
        position = seat.status.read()
        if seat.number not in self._ready:
            raise ConfigError(
                f"a worker process ended while it started ({_reason(crash.code)}); see the messages above, or use "
                "workers=0"
            )
        if position is None and not timed_out:
            raise DataError(
                f"a worker process ended unexpectedly ({_reason(crash.code)}); finished parts are kept: repeat the "
                "call to continue, with fewer workers if memory ran out"
            )
        self._timed_out.discard(seat.number)
        self._ready.discard(seat.number)
        lost = list(self._given[seat.number])
        self._given[seat.number].clear()
        seat.free += [arena for _, arena in lost]
        self._waiting.extendleft(opened for opened, _ in reversed(lost))
        seat.start()
        if position is None:
            return
        opened = self._open[position.task]
        self._suspect(opened, position, timed_out, crash.code)
        self._waiting.remove(opened)
        # The next task of the new process is the suspect alone, or the rest of its batch.
        if not opened.is_done:
            self._give(seat, opened)

    def _suspect(self, opened: _Open, position: Position, timed_out: bool, code: int) -> None:
        place = position.place
        if place not in opened.tried:
            opened.tried.add(place)
            opened.suspect = place
            return
        opened.suspect = None
        if timed_out and position.stage == Stage.READING:
            raise DataError(
                f"reading {opened.task.where(place)} gave no data for {self._seconds:g} seconds; check the disk or "
                "network; finished parts are kept: repeat the call to continue"
            )
        if timed_out:
            detail = f"reading and decoding took longer than {self._seconds:g} seconds"
            opened.found[place] = PreparedCell(code="timeout", detail=detail)
        elif -code in _KILLED:
            raise DataError(
                f"a worker process was killed twice ({_reason(code)}) at {opened.task.where(place)}, possibly because "
                "memory ran out; finished parts are kept: use fewer workers or smaller limits, and repeat the call to "
                "continue"
            )
        else:
            opened.found[place] = PreparedCell(code="undecodable", detail=f"the decoder crashed ({_reason(code)})")

    def _failure(self, failed: Failed) -> Exception:
        error: UniAlignError
        if failed.number < 0:
            error = ConfigError(
                f"worker processes cannot load the encoders: {failed.error}: {failed.message}; define `prepare` in a "
                "module that can be imported, or use workers=0"
            )
        else:
            task = self._open[failed.number].task
            error = unexpected_failure(task, failed.place, failed.kind, failed.error, failed.message)
        if failed.kind == "unexpected":
            error.__cause__ = RuntimeError(f"in a worker process:\n{failed.trace}")
        return error


class _Pickler(pickle.Pickler):
    """A worker does not run the script of the caller, so it cannot import what the script defines."""

    def reducer_override(self, value: Any) -> Any:
        if getattr(value, "__module__", None) == "__main__" and hasattr(value, "__qualname__"):
            raise pickle.PicklingError(f"{value.__qualname__} is defined in the script that is running")
        return NotImplemented


def pickled_columns(columns: Mapping[str, ColumnWork]) -> bytes:
    try:
        content = io.BytesIO()
        _Pickler(content).dump(dict(columns))
        return content.getvalue()
    except Exception as error:  # pickle raises several exception types
        raise ConfigError(
            f"worker processes cannot receive the encoders ({error}); define `prepare` at the top level of a module "
            "that can be imported, or use workers=0"
        ) from None


def _copied(arrays: Mapping[str, NDArray[Any]] | None) -> dict[str, NDArray[Any]] | None:
    return None if arrays is None else {name: array.copy() for name, array in arrays.items()}


def _reason(code: int) -> str:
    if code >= 0:
        return f"exit status {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
