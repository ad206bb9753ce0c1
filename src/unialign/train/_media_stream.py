"""Prepared media of the rows of a step, which worker processes decode ahead.

Shapes: `N` rows of the store, `B` rows of a batch.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unialign.embedding import BatchTask, ColumnWork, PreparedBatch, Preparer
from unialign.encoders import Prepared
from unialign.errors import DataError
from unialign.media import Cell

# Cells of a task, at most; several processes share a step.
_TASK_CELLS = 32
# Steps that are decoded ahead.
_AHEAD = 2


@dataclass(frozen=True)
class MediaColumn:
    """Cells of a modality, and the (N,) index of the cell of each row, -1 if absent."""

    cells: Sequence[Cell]
    index_N: NDArray[np.int64]
    work: ColumnWork


@dataclass(frozen=True)
class PreparedRows:
    """Prepared media of consecutive rows of a batch, None for absent ones; a slice is a micro-batch."""

    rows: Sequence[Prepared | None]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, part: slice) -> "PreparedRows":
        return PreparedRows(self.rows[part])


class PreparedCache:
    """Prepared arrays of cells without random changes, up to a size in bytes. Arrays are never evicted."""

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._found: dict[tuple[str, int], Prepared] = {}

    def get(self, key: tuple[str, int]) -> Prepared | None:
        return self._found.get(key)

    def add(self, key: tuple[str, int], arrays: Prepared) -> None:
        size = sum(array.nbytes for array in arrays.values())
        if key not in self._found and size <= self._free:
            self._found[key] = arrays
            self._free -= size


class MediaStream:
    """Prepare the media of the training rows, in the order of the steps.

    The media of a step are a pure function of the seed and the step. Without random changes, prepared arrays are cached
    in memory while they fit.

    Args:
        columns: cells of the modalities.
        rows_of: rows of the store that this process needs for a step.
        steps: number of steps.
        seed_of: seed of the random changes, given step, row and modality; None: no changes.
        workers: worker processes, 0 for none.
        cache: where arrays are cached without random changes.
    """

    def __init__(
        self,
        columns: Mapping[str, MediaColumn],
        *,
        rows_of: Callable[[int], NDArray[np.int64]],
        steps: int,
        seed_of: Callable[[int, int, str], int] | None,
        workers: int,
        cache: PreparedCache,
    ) -> None:
        self._columns, self._rows_of, self._steps = columns, rows_of, steps
        self._seed_of, self._workers, self._cached = seed_of, workers, cache
        self._preparer = Preparer({name: column.work for name, column in columns.items()}, workers=workers)
        self._queue = _Queue()
        self._running: Iterator[PreparedBatch] = iter(())
        # Numbers of tasks of the steps that were requested, and the step after them.
        self._requested: dict[int, int] = {}
        self._next = -1
        self._step = -1
        self._found: dict[tuple[str, int], Prepared] = {}
        self._tasks = 0

    def prepared(self, step: int, name: str, rows_B: NDArray[np.int64]) -> PreparedRows:
        """Return the prepared media of rows of a step; earlier steps cannot be requested again.

        Raises:
            DataError: a cell that was decoded before cannot be decoded.
        """
        if step != self._step:
            self._collect(step)
        cells_B = self._columns[name].index_N[rows_B].tolist()
        found = zip(rows_B.tolist(), cells_B, strict=True)
        return PreparedRows([None if cell < 0 else self._of(name, row, cell) for row, cell in found])

    def close(self) -> None:
        self._running = iter(())
        self._preparer.close()

    def _of(self, name: str, row: int, cell: int) -> Prepared:
        key = (name, cell if self._seed_of is None else row)
        found = self._cached.get(key) if self._seed_of is None else None
        return self._found[key] if found is None else found

    def _collect(self, step: int) -> None:
        self._request_until(step)
        self._found = {}
        for _ in range(self._requested.pop(step)):
            batch = next(self._running, None)
            if batch is None:
                # All tasks of the last call are finished, and there are new ones.
                self._running = self._preparer.batches(self._queue)
                batch = next(self._running)
            for key, arrays in copied_arrays(batch, doing="training"):
                self._found[key] = arrays
                if self._seed_of is None:
                    self._cached.add(key, arrays)
        self._step = step

    def _request_until(self, step: int) -> None:
        if self._next < 0:
            self._next = step  # the first step of this run
        while self._next <= min(step + _AHEAD, self._steps - 1):
            tasks = list(self._tasks_of(self._next))
            self._queue.tasks.extend(tasks)
            self._requested[self._next] = len(tasks)
            self._next += 1

    def _tasks_of(self, step: int) -> Iterator[BatchTask]:
        rows = self._rows_of(step)
        for name, column in self._columns.items():
            cells = column.index_N[rows]
            rows_n, cells_n = rows[cells >= 0].tolist(), cells[cells >= 0].tolist()
            if self._seed_of is None:
                wanted = {cell: cell for cell in cells_n if self._cached.get((name, cell)) is None}
            else:
                wanted = dict(zip(rows_n, cells_n, strict=True))
            keys = list(wanted)
            size = min(_TASK_CELLS, max(1, -(-len(keys) // max(1, self._workers))))
            for start in range(0, len(keys), size):
                part = keys[start : start + size]
                seeds = None if self._seed_of is None else [self._seed_of(step, row, name) for row in part]
                yield BatchTask(self._tasks, name, step, part, [column.cells[wanted[key]] for key in part], seeds)
                self._tasks += 1


class _Queue:
    """An iterator that may end for a while, until there are tasks again."""

    def __init__(self) -> None:
        self.tasks: deque[BatchTask] = deque()

    def __iter__(self) -> "_Queue":
        return self

    def __next__(self) -> BatchTask:
        if not self.tasks:
            raise StopIteration
        return self.tasks.popleft()


def prepared_cells_of(
    columns: Mapping[str, MediaColumn], rows: NDArray[np.int64], cache: PreparedCache, *, workers: int
) -> Iterator[tuple[str, NDArray[np.int64], list[Prepared]]]:
    """Yield the prepared media of the distinct cells of rows, without random changes, by modality in blocks."""
    preparer = Preparer({name: column.work for name, column in columns.items()}, workers=workers)
    number = 0
    try:
        for name, column in columns.items():
            cells = np.unique(column.index_N[rows])
            cells = cells[cells >= 0]
            size = _TASK_CELLS * max(1, workers) * 4
            for start in range(0, len(cells), size):
                block = cells[start : start + size]
                missing = [cell for cell in block.tolist() if cache.get((name, cell)) is None]
                tasks = []
                for first in range(0, len(missing), _TASK_CELLS):
                    part = missing[first : first + _TASK_CELLS]
                    tasks.append(BatchTask(number, name, 0, part, [column.cells[cell] for cell in part]))
                    number += 1
                found: dict[tuple[str, int], Prepared] = {}
                for batch in preparer.batches(iter(tasks)) if tasks else ():
                    found |= dict(copied_arrays(batch, doing="evaluation"))
                for key, arrays in found.items():
                    cache.add(key, arrays)
                yield name, block, [_cached(found, cache, (name, cell)) for cell in block.tolist()]
    finally:
        preparer.close()


def _cached(found: Mapping[tuple[str, int], Prepared], cache: PreparedCache, key: tuple[str, int]) -> Prepared:
    arrays = found[key] if key in found else cache.get(key)
    assert arrays is not None
    return arrays


def copied_arrays(batch: PreparedBatch, *, doing: str) -> Iterator[tuple[tuple[str, int], Prepared]]:
    """Raise DataError for a cell without content: which items are present must not depend on the time."""
    for place, outcome in enumerate(batch.outcomes):
        if outcome.arrays is None:
            found = "has no content" if outcome.code is None else f"{outcome.detail} ({outcome.code})"
            raise DataError(
                f"{batch.task.column!r}, {batch.task.cells[place].where}, cannot be decoded in {doing}: {found}; it "
                f"was decoded when the data were embedded, so restore the file, check the machine, and continue with "
                f"resume='auto'"
            )
        key = (batch.task.column, batch.task.numbers[place])
        yield key, {name: np.array(array) for name, array in outcome.arrays.items()}
