"""The main function of a worker process, which reads, decodes and prepares the cells of batches.

The process communicates by pipes and shared memory. It imports no torch, unless `prepare` does.
"""

import ctypes
import os
import pickle
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from unialign.embedding._arena import Arena, Stage, StatusBoard
from unialign.embedding._prepare import ColumnWork, PreparedCell, ReadFailure, prepare_cell, read_cell
from unialign.errors import UniAlignError
from unialign.media import Cell, OpenFiles

__all__ = ["Crashed", "Done", "Failed", "Ready", "TaskMessage", "main"]

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class TaskMessage:
    """A batch, or a part of it. The results are written to the shared memory number `arena`.

    Cells have their place in the batch and the seed of their augmentation. A cell at which a process hung or ended is
    alone, and is read before it is decoded. A read that hangs is not a fault of the cell.
    """

    number: int
    column: str
    arena: int
    cells: Sequence[tuple[int, Cell, int | None]]
    is_suspect: bool = False


@dataclass(frozen=True)
class Ready: ...


@dataclass(frozen=True)
class Done:
    """Outcomes without arrays, and the layout and size of the arrays in shared memory."""

    number: int
    places: Sequence[int]
    outcomes: Sequence[PreparedCell]
    layout: Any
    size: int


@dataclass(frozen=True)
class Failed:
    """`kind` is `read`, `known` (a UniAlignError) or `unexpected`."""

    number: int
    place: int
    kind: str
    error: str
    message: str
    trace: str


@dataclass(frozen=True)
class Crashed:
    """Created by the main process if a worker has ended."""

    code: int


def main(arguments: Sequence[str]) -> None:
    """Run a worker.

    Args:
        arguments: process id of the main process, followed by the file descriptors of the task pipe, the result pipe,
            the status board and the arenas.
    """
    parent, tasks, results, status, *arenas = map(int, arguments)
    _end_with(parent)
    # The standard output may contain the result of the command.
    os.dup2(2, 1)
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with open(tasks, "rb") as source, open(results, "wb") as target:
        columns = _first(source, target)
        threading.Thread(target=_receive, args=(source, inbox), daemon=True).start()
        _send(target, Ready())
        # Decoders print a message for many damaged files.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os.dup2(2, 1)
        board = StatusBoard(status)
        memories = [Arena(handle) for handle in arenas]
        begun: set[str] = set()
        with OpenFiles() as files:
            while True:
                task = inbox.get()
                answer = _work(task, columns[task.column], memories[task.arena], board, files, begun)
                board.clear()
                _send(target, answer)


def _end_with(parent: int) -> None:
    if sys.platform == "linux":
        # A decoder that does not return would also block the thread that detects the closed pipe.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _first(source: BinaryIO, target: BinaryIO) -> Mapping[str, ColumnWork]:
    try:
        columns: Mapping[str, ColumnWork] = pickle.load(source)
        return columns
    except EOFError:
        os._exit(0)
    except BaseException as error:
        _send(target, Failed(-1, -1, "unexpected", type(error).__name__, str(error), traceback.format_exc()))
        os._exit(1)


def _receive(source: BinaryIO, inbox: "queue.SimpleQueue[Any]") -> None:
    while True:
        try:
            inbox.put(pickle.load(source))
        except BaseException:  # the main process closed the pipe, or ended
            os._exit(0)


def _work(
    task: TaskMessage, column: ColumnWork, arena: Arena, board: StatusBoard, files: OpenFiles, begun: set[str]
) -> Done | Failed:
    """Process a task; `begun` has the columns of earlier cells."""
    outcomes = []
    for place, cell, seed in task.cells:

        def show(busy: bool, place: int = place) -> None:
            stage = Stage.CELL if task.is_suspect or task.column in begun else Stage.FIRST_CELL
            board.write(task.number, place, stage if busy else Stage.WAITING)

        try:
            if task.is_suspect:
                for _ in read_cell(column, cell, files=files):
                    board.write(task.number, place, Stage.READING)
            outcomes.append(prepare_cell(column, cell, files=files, on_stage=show, seed=seed))
            begun.add(task.column)
        except Exception as error:
            kind = "read" if isinstance(error, ReadFailure) else "known" if isinstance(error, UniAlignError) else ""
            kind = kind or "unexpected"
            return Failed(task.number, place, kind, type(error).__name__, str(error), traceback.format_exc())
    layout, size = arena.write([outcome.arrays for outcome in outcomes])
    for outcome in outcomes:
        outcome.arrays = None
    return Done(task.number, [place for place, _, _ in task.cells], outcomes, layout, size)


def _send(target: BinaryIO, message: object) -> None:
    try:
        pickle.dump(message, target)
        target.flush()
    except BrokenPipeError:  # the main process ended
        os._exit(0)
