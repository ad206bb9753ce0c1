"""Compute parts on this machine: worker processes read, decode and prepare cells, and this process encodes them."""

import contextlib
import os
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from unialign.embedding._batch import BatchTask, PreparedBatch, prepare_batches
from unialign.embedding._clock import Clock
from unialign.embedding._compute import compute_part
from unialign.embedding._part_file import BrokenCell, part_bytes
from unialign.embedding._plan import Plan
from unialign.embedding._pool import WorkerPool, pickled_columns
from unialign.embedding._prepare import ColumnWork
from unialign.encoders import Encoder
from unialign.errors import ConfigError
from unialign.media import Cell

__all__ = [
    "FinishedPart",
    "PartName",
    "chosen_workers",
    "compute_parts",
    "cores",
    "encoder_threads",
    "finished_part",
    "part_tasks",
]

# Column and number of a part.
PartName = tuple[str, int]


class FinishedPart(NamedTuple):
    column: str
    number: int
    data: bytes
    broken: Sequence[BrokenCell]


def compute_parts(
    plan: Plan,
    parts: Sequence[PartName],
    *,
    cells: Mapping[str, Sequence[Cell]],
    work: Mapping[str, ColumnWork],
    encoders: Mapping[str, Encoder],
    workers: int,
    clock: Clock,
    on_cells: Callable[[str, int], None],
) -> Generator[FinishedPart]:
    """Yield the computed parts; `on_cells` is called with a column and a number of cells that were encoded."""
    with contextlib.ExitStack() as stack:
        tasks = part_tasks(plan, parts, cells)
        if workers:
            batches = sum(len(plan.batches_of(*part)) for part in parts)
            pool = WorkerPool(
                pickled_columns(work), workers=min(workers, batches), seconds=plan.settings.limits.seconds
            )
            prepared = stack.enter_context(pool).batches(tasks)
        else:
            prepared = prepare_batches(work, tasks)
        timed = _timed(prepared, clock)
        for column, number in parts:
            batches_of_part = islice(timed, len(plan.batches_of(column, number)))
            yield finished_part(plan, (column, number), encoders[column], batches_of_part, clock, on_cells)


def finished_part(
    plan: Plan,
    name: PartName,
    encoder: Encoder,
    batches: Iterator[PreparedBatch],
    clock: Clock,
    on_cells: Callable[[str, int], None] = lambda column, cells: None,
) -> FinishedPart:
    part = compute_part(plan, name[0], encoder, batches, clock, on_cells)
    return FinishedPart(*name, part_bytes(plan, *name, part), part.broken)


def part_tasks(plan: Plan, parts: Sequence[PartName], cells: Mapping[str, Sequence[Cell]]) -> Iterator[BatchTask]:
    number = 0
    for column, part in parts:
        for numbers in plan.batches_of(column, part):
            yield BatchTask(number, column, part, numbers, [cells[column][i] for i in numbers])
            number += 1


def _timed(batches: Iterator[PreparedBatch], clock: Clock) -> Iterator[PreparedBatch]:
    while True:
        with clock("wait"):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def chosen_workers(asked: int | str, device_type: str, work: Mapping[str, ColumnWork]) -> int:
    if asked == 0:
        return 0
    try:
        if os.name != "posix":
            raise ConfigError("worker processes need a POSIX system; use workers=0")
        pickled_columns(work)
    except ConfigError as error:
        if asked != "auto":
            raise
        warnings.warn(f"media are decoded in this process, which is slower: {error}", stacklevel=2)
        return 0
    if asked != "auto":
        return int(asked)
    return max(1, cores() // 2 if device_type == "cpu" else cores() - 1)


@contextlib.contextmanager
def encoder_threads(threads: int) -> Iterator[None]:
    """Set the number of threads temporarily, since the last bits of features depend on it."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
