"""Batches of cells to prepare, and their preparation in the current process."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from unialign import errors
from unialign.embedding._prepare import ColumnWork, PreparedCell, ReadFailure, prepare_cell
from unialign.errors import ConfigError, DataError, UniAlignError
from unialign.media import Cell, OpenFiles

__all__ = ["BatchTask", "PreparedBatch", "prepare_batches", "unexpected_failure"]


@dataclass(frozen=True)
class BatchTask:
    """A batch of a part of a column; `number` is the number of the task in the run.

    With `seeds`, one per cell, media are augmented at random before they are prepared.
    """

    number: int
    column: str
    part: int
    numbers: Sequence[int]
    cells: Sequence[Cell]
    seeds: Sequence[int] | None = None

    def seed(self, place: int) -> int | None:
        return None if self.seeds is None else self.seeds[place]

    def where(self, place: int) -> str:
        return f"{self.cells[place].where} (cell {self.numbers[place]} of {self.column!r})"


class PreparedBatch(NamedTuple):
    task: BatchTask
    outcomes: Sequence[PreparedCell]


def prepare_batches(columns: Mapping[str, ColumnWork], tasks: Iterator[BatchTask]) -> Iterator[PreparedBatch]:
    """Prepare batches in this process, where a decoder that hangs or crashes ends the run."""
    with OpenFiles() as files:
        for task in tasks:
            outcomes = []
            for place, cell in enumerate(task.cells):
                try:
                    # Decoders warn about many damaged files, which are listed by code.
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        outcomes.append(prepare_cell(columns[task.column], cell, files=files, seed=task.seed(place)))
                except UniAlignError as error:
                    raise unexpected_failure(task, place, "known", type(error).__name__, str(error)) from error
                except ReadFailure as error:
                    raise unexpected_failure(task, place, "read", type(error).__name__, str(error)) from error
                except Exception as error:
                    raise unexpected_failure(task, place, "unexpected", type(error).__name__, str(error)) from error
            yield PreparedBatch(task, outcomes)


def unexpected_failure(task: BatchTask, place: int, kind: str, name: str, message: str) -> UniAlignError:
    """Return the error to raise; `kind` is `read`, `known` (a UniAlignError) or `unexpected`."""
    where = task.where(place)
    if kind == "read":
        return DataError(
            f"{where} cannot be read ({message}), even after several attempts; this is not a fault of the data, so the "
            "run stops and the cell is not listed as broken: check the disk or network, and repeat the call to continue"
        )
    if kind == "known":
        return getattr(errors, name, DataError)(
            message if task.cells[place].where in message else f"{where}: {message}"
        )
    return ConfigError(
        f"the encoder of {task.column!r} failed to prepare {where}: {name}: {message}; correct the encoder or remove "
        "the item"
    )
