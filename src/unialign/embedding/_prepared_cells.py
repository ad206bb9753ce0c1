"""Prepare cells without an encoder."""

import os
from collections.abc import Iterator, Mapping, Sequence

from unialign.embedding._batch import BatchTask, prepare_batches
from unialign.embedding._local import cores
from unialign.embedding._pool import WorkerPool, pickled_columns
from unialign.embedding._prepare import ColumnWork, PreparedCell
from unialign.media import Cell

__all__ = ["prepared_cells"]

_BATCH = 16
# Starting a process takes longer than decoding a few cells.
_CELLS_PER_WORKER = 64


def prepared_cells(
    work: Mapping[str, ColumnWork], cells: Mapping[str, Sequence[Cell]]
) -> Iterator[tuple[str, PreparedCell]]:
    """Yield the column and the outcome of each cell in order.

    Worker processes decode the cells, so a decoder that hangs or crashes gives a broken cell.

    Args:
        work: how to prepare the cells of each column; `prepare` is defined in a module that can be imported. All
            columns have equal limits.
        cells: cells of each column.

    Raises:
        DataError: the machine or file system failed, even after several attempts.
        MissingDependencyError: decoding needs a package that is not installed.
    """
    total = sum(map(len, cells.values()))
    if not total:
        return
    tasks = _tasks(cells)
    if os.name != "posix":
        for batch in prepare_batches(work, tasks):
            yield from ((batch.task.column, outcome) for outcome in batch.outcomes)
        return
    seconds = min(own.limits.seconds for own in work.values())
    workers = max(1, min(cores(), total // _CELLS_PER_WORKER))
    with WorkerPool(pickled_columns(work), workers=workers, seconds=seconds) as pool:
        for batch in pool.batches(tasks):
            yield from ((batch.task.column, outcome) for outcome in batch.outcomes)


def _tasks(cells: Mapping[str, Sequence[Cell]]) -> Iterator[BatchTask]:
    number = 0
    for column, own in cells.items():
        for start in range(0, len(own), _BATCH):
            batch = own[start : start + _BATCH]
            yield BatchTask(number, column, 0, range(start, start + len(batch)), batch)
            number += 1
