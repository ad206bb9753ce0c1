"""Prepare batches of cells in order, in worker processes or in the current process."""

from collections.abc import Iterator, Mapping

from unialign.embedding._batch import BatchTask, PreparedBatch, prepare_batches
from unialign.embedding._pool import WorkerPool, pickled_columns
from unialign.embedding._prepare import ColumnWork

__all__ = ["Preparer"]


class Preparer:
    """`workers` processes, which start with the first batch; 0 prepares in this process, where a decoder that hangs or
    crashes ends the run.

    All columns have equal limits. The thread that requests the first batch must live as long as the processes.
    """

    def __init__(self, work: Mapping[str, ColumnWork], *, workers: int) -> None:
        self._work, self._workers = work, workers
        self._pool: WorkerPool | None = None

    def batches(self, tasks: Iterator[BatchTask]) -> Iterator[PreparedBatch]:
        """Yield batches in the order of the tasks; arrays are valid until the next batch is requested. Tasks are taken
        ahead of the batches. If they run out, a later call continues with new tasks.
        """
        if not self._workers:
            return prepare_batches(self._work, tasks)
        if self._pool is None:
            seconds = min(own.limits.seconds for own in self._work.values())
            self._pool = WorkerPool(pickled_columns(self._work), workers=self._workers, seconds=seconds)
            self._pool.start()
        return self._pool.batches(tasks)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()
            self._pool = None
