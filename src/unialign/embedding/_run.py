"""One run of `embed` with a locked work folder."""

import contextlib
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import numpy as np

from unialign._stop_request import StopRequest
from unialign.config import EmbedConfig, ProgressMode, Resume
from unialign.data import EmbeddingStore, Overwrite
from unialign.embedding._assemble import Cells, assemble
from unialign.embedding._broken_count import BrokenCount
from unialign.embedding._clock import Clock
from unialign.embedding._local import FinishedPart, PartName, chosen_workers, compute_parts
from unialign.embedding._make_plan import column_work
from unialign.embedding._part_file import BrokenCell, part_bytes
from unialign.embedding._part_writer import PartWriter
from unialign.embedding._plan import Plan, differences
from unialign.embedding._progress import Progress
from unialign.embedding._ray import compute_parts_on_ray
from unialign.embedding._resume import ChangedFiles, finished_parts
from unialign.embedding._reuse import is_reusable, stored_parts
from unialign.embedding._work_folder import WorkFolder
from unialign.encoders import Encoder
from unialign.errors import CheckpointError
from unialign.items import Items

__all__ = ["Run"]

_INTERRUPTED = "interrupted; finished parts are kept: run the same command again to continue"


class Run:
    def __init__(
        self,
        plan: Plan,
        items: Items,
        cells: Mapping[str, Cells],
        encoders: Mapping[str, Encoder],
        folder: WorkFolder,
        config: EmbedConfig,
        progress: ProgressMode,
        work_options: Mapping[str, Any],
        ray_address: str | None,
        offline: bool | None,
    ) -> None:
        self._plan, self._items, self._cells, self._encoders = plan, items, cells, encoders
        self._folder, self._config, self._progress = folder, config, progress
        self._ray_address, self._offline = ray_address, offline
        self._work = {name: column_work(plan, name, encoders[name], **work_options) for name in plan.columns}
        self.clock = Clock()
        self._done: set[PartName] = set()
        self._cells_done = dict.fromkeys(plan.columns, 0)
        self._broken = BrokenCount(plan, self._where)
        self.computed = self.resumed = self.reused = 0
        self.waiting = "waiting"

    def prepare(self, resume: Resume, overwrite: Overwrite) -> None:
        stored = self._folder.stored_plan()
        if stored is not None and overwrite == "never":
            if resume == "never":
                raise CheckpointError(
                    f"{self._folder.path} has an unfinished run; continue it with resume='auto', or discard it with "
                    "overwrite='replace' (`unialign embed --overwrite`)"
                )
            changed = differences(stored, self._plan)
            if changed:
                raise CheckpointError(
                    f"{self._folder.path} has an unfinished run with other settings ({'; '.join(changed)}); repeat the "
                    "call with its settings, or delete the folder or pass overwrite='replace' (`unialign embed "
                    "--overwrite`) to start again"
                )
        if resume == "never":
            self._folder.discard_parts()
        self._folder.discard_leftovers()
        self._folder.write_plan(self._plan)
        changed_files = ChangedFiles(self._plan.roots)
        for column, number, part in finished_parts(self._plan, self._folder):
            outdated = changed_files.in_part(part.marks)
            if outdated or (self._config.retry_broken and part.broken):
                if outdated and not self._config.allow_changed:
                    continue
                self._folder.discard_part(column, number)
                continue
            self._take(column, number, part.broken)
            self.resumed += 1
        if changed_files.found and not self._config.allow_changed:
            raise changed_files.error()

    def copy(self, store: EmbeddingStore, *, with_broken: bool) -> None:
        """Copy parts whose files did not change."""
        changed = ChangedFiles(self._plan.roots)
        for column in self._plan.columns:
            if is_reusable(store, self._plan, column):
                with PartWriter(self._folder) as writer:
                    for number, part in stored_parts(store, self._plan, column, with_broken=with_broken):
                        if (column, number) not in self._done and not changed.in_part(part.marks):
                            writer.put(column, number, part_bytes(self._plan, column, number, part))
                            self._take(column, number, part.broken)
                            self.reused += 1

    def finish(self, overwrite: Overwrite) -> EmbeddingStore:
        missing = [
            (column, number)
            for column in self._plan.columns
            for number in range(self._plan.parts(column))
            if (column, number) not in self._done
        ]
        with StopRequest() as stop:

            def check_stop() -> None:
                if stop.received is not None:
                    stop.leave(_INTERRUPTED, stop.received)

            if missing:
                self._compute(missing, check_stop)
            with self.clock("write"):
                return assemble(
                    self._plan, self._items, self._cells, self._folder, overwrite=overwrite, check_stop=check_stop
                )

    def _compute(self, missing: Sequence[PartName], check_stop: Callable[[], None]) -> None:
        # Parts are computed during iteration, when the progress display exists.
        parts, self.waiting = self._engine(missing, lambda column, cells: display.advance(column, cells))
        display = Progress(self._progress, self._plan, self.clock, self._cells_done, waiting=self.waiting)
        with contextlib.closing(parts), contextlib.closing(display), PartWriter(self._folder) as writer:
            for part in parts:
                with self.clock("write"):
                    writer.put(part.column, part.number, part.data)
                self.computed += 1
                self._take(part.column, part.number, part.broken)
                check_stop()

    def _engine(
        self, missing: Sequence[PartName], on_cells: Callable[[str, int], None]
    ) -> tuple[Generator[FinishedPart], str]:
        """Return the parts, and what this process does or waits for meanwhile."""
        cells = {name: column[0] for name, column in self._cells.items()}
        if self._config.engine == "ray":
            parts = compute_parts_on_ray(
                self._plan,
                missing,
                cells=cells,
                encoders=self._encoders,
                actors=self._config.workers,
                address=self._ray_address,
                offline=self._offline,
                clock=self.clock,
                on_cells=on_cells,
            )
            return parts, "waiting for Ray"
        workers = chosen_workers(self._config.workers, self._plan.settings.device_type, self._work)
        parts = compute_parts(
            self._plan,
            missing,
            cells=cells,
            work=self._work,
            encoders=self._encoders,
            workers=workers,
            clock=self.clock,
            on_cells=on_cells,
        )
        return parts, "waiting for decoding" if workers else "decoding"

    def _take(self, column: str, number: int, broken: Sequence[BrokenCell]) -> None:
        self._done.add((column, number))
        self._cells_done[column] += len(self._plan.cells_of(column, number))
        self._broken.add(column, broken)

    def _where(self, column: str, cell: int) -> str:
        found, index_N = self._cells[column]
        row = int(np.flatnonzero(index_N == cell)[0])
        return f"{column!r} of item {str(self._items.keys[row])!r} ({found[cell].where})"
