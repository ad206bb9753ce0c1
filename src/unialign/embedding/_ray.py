"""Compute parts on the machines of a Ray cluster.

A row of the Ray data set is a part, and the result of a part is the content of its file, which the driver writes. So
the order of results does not matter, and only the computation differs from that of the local engine.
"""

import contextlib
import json
import logging
import os
import socket
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

from unialign import errors
from unialign.embedding._clock import Clock
from unialign.embedding._local import FinishedPart, PartName, encoder_threads, finished_part, part_tasks
from unialign.embedding._make_plan import column_work
from unialign.embedding._part_file import BrokenCell
from unialign.embedding._plan import ColumnPlan, Plan
from unialign.embedding._pool import WorkerPool, pickled_columns
from unialign.encoders import Encoder, load
from unialign.errors import ConfigError, DataError, MissingDependencyError, UniAlignError
from unialign.media import Cell

__all__ = ["compute_parts_on_ray"]

# Ray needs a CPU for the tasks that create the rows; with actors on all CPUs, it waits forever.
_OTHER_CPUS = 1
_CONNECT_SECONDS = 10


def compute_parts_on_ray(
    plan: Plan,
    parts: Sequence[PartName],
    *,
    cells: Mapping[str, Sequence[Cell]],
    encoders: Mapping[str, Encoder],
    actors: int | str,
    address: str | None,
    offline: bool | None,
    clock: Clock,
    on_cells: Callable[[str, int], None],
) -> Generator[FinishedPart]:
    """Yield the parts in any order.

    Args:
        actors: number of processes that encode, each on as many CPUs as it has threads, with a process that decodes;
            "auto": as many as fit on the CPUs of the cluster, with one CPU left free.
        address, offline: see `embed`.
        on_cells: is called with the column and the number of cells of each part.

    Raises:
        ConfigError: the cluster has too few CPUs, or an encoder cannot be loaded on other machines.
        DataError: a part failed; finished parts are kept.
        MissingDependencyError: Ray is not installed.
    """
    for name in plan.columns:
        if encoders[name].reference["kind"] == "module":
            raise ConfigError(
                f"the encoder of {name!r} was passed to wrap, so other machines cannot load it; name an encoder, or "
                "use engine='local'"
            )
    ray = _import("ray")
    data = _import("ray.data")
    with _connected(ray, address):
        cpus = max(1, plan.settings.threads)
        number = _number_of_actors(ray.cluster_resources(), actors, len(parts), plan.settings.device_type, cpus)
        with _quiet(data):
            rows = data.range(len(parts), override_num_blocks=len(parts)).map_batches(
                _Work,
                batch_size=1,
                batch_format="pyarrow",
                compute=data.ActorPoolStrategy(size=number),
                num_cpus=cpus,
                num_gpus=0 if plan.settings.device_type == "cpu" else 1,
                fn_constructor_args=(plan, list(parts), dict(cells), offline),
            )
            for part in _finished(rows.iter_rows(), parts, clock):
                on_cells(part.column, len(plan.cells_of(part.column, part.number)))
                yield part


def _finished(rows: Iterator[Mapping[str, Any]], parts: Sequence[PartName], clock: Clock) -> Iterator[FinishedPart]:
    rows = iter(rows)
    while True:
        with clock("wait"):
            try:
                row = next(rows, None)
            except Exception as error:  # Ray raises several exception types
                raise DataError(
                    f"Ray could not compute a part ({type(error).__name__}: {_first_line(error)}); finished parts are "
                    "kept: repeat the call to continue"
                ) from error
        if row is None:
            return
        if row["error"]:
            raise getattr(errors, row["error"], DataError)(row["message"])
        column, number = parts[int(row["id"])]
        broken = [BrokenCell(*entry) for entry in json.loads(row["broken"])]
        yield FinishedPart(column, number, row["data"], broken)


class _Work:
    """An actor: loads the encoders by their references, and computes one part at a time."""

    def __init__(
        self, plan: Plan, parts: Sequence[PartName], cells: Mapping[str, Sequence[Cell]], offline: bool | None
    ) -> None:
        self._plan, self._parts, self._cells, self._offline = plan, parts, cells, offline
        self._encoders: dict[str, Encoder] = {}
        self._column: str | None = None
        self._pool: WorkerPool | None = None

    def __call__(self, rows: Any) -> Any:
        (row,) = rows["id"].to_pylist()
        try:
            part = self._compute(self._parts[row])
            found = {"data": part.data, "broken": json.dumps(part.broken), "error": "", "message": ""}
        except UniAlignError as error:
            # Ray would compute a part again after an exception.
            found = {"data": b"", "broken": "[]", "error": type(error).__name__, "message": str(error)}
        pyarrow = import_module("pyarrow")
        types = {"data": pyarrow.large_binary(), "id": pyarrow.int64()}
        columns = {"id": row, **found}
        return pyarrow.table(
            {name: pyarrow.array([value], types.get(name, pyarrow.string())) for name, value in columns.items()}
        )

    def _compute(self, name: PartName) -> FinishedPart:
        column, plan = name[0], self._plan
        # Ray sets the number of threads by the CPUs of an actor.
        with encoder_threads(plan.settings.threads):
            encoder = self._encoder(plan.columns[column])
            batches = self._pool_of(column, encoder).batches(part_tasks(plan, [name], self._cells))
            return finished_part(plan, name, encoder, batches, Clock())

    def _encoder(self, planned: ColumnPlan) -> Encoder:
        if planned.encoder not in self._encoders:
            device = self._plan.settings.device_type
            self._encoders[planned.encoder] = load(planned.reference, device=device, offline=self._offline)
        return self._encoders[planned.encoder]

    def _pool_of(self, column: str, encoder: Encoder) -> WorkerPool:
        """Return the decoding process of a column; parts of a column are mostly consecutive."""
        if self._pool is None or column != self._column:
            if self._pool is not None:
                self._pool.close()
            work = {column: column_work(self._plan, column, encoder)}
            self._pool = WorkerPool(pickled_columns(work), workers=1, seconds=self._plan.settings.limits.seconds)
            self._pool.start()
            self._column = column
        return self._pool


def _number_of_actors(
    resources: Mapping[str, float], asked: int | str, parts: int, device_type: str, cpus_per_actor: int
) -> int:
    cpus = int(resources.get("CPU", 0))
    most = (cpus - _OTHER_CPUS) // cpus_per_actor
    number = min(parts, most) if asked == "auto" else int(asked)
    if device_type != "cpu":
        gpus = int(resources.get("GPU", 0))
        most, number = min(most, gpus), min(number, gpus) if asked == "auto" else number
    if not 1 <= number <= most:
        needed = max(number, 1) * cpus_per_actor + _OTHER_CPUS
        raise ConfigError(
            f"{max(number, 1)} Ray actors need {needed} CPUs, one of them for Ray, but the cluster has {cpus} CPUs and "
            f"{int(resources.get('GPU', 0))} GPUs; pass fewer workers or threads, or add machines"
        )
    return number


@contextlib.contextmanager
def _connected(ray: Any, address: str | None) -> Iterator[None]:
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        _check_reachable(address)
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"cannot connect to the Ray cluster {address!r}: {_first_line(error)}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_reachable(address: str | None) -> None:
    """Connect to HOST:PORT once, since Ray tries for a minute to reach a cluster that does not exist."""
    host, separator, port = (address or "").removeprefix("ray://").rpartition(":")
    if separator and port.isdecimal():
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS):
            pass


@contextlib.contextmanager
def _quiet(data: Any) -> Iterator[None]:
    """Hide the progress bars and messages of Ray Data."""
    context, logger = data.DataContext.get_current(), logging.getLogger("ray.data")
    shown, level = context.enable_progress_bars, logger.level
    context.enable_progress_bars = False
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        context.enable_progress_bars = shown
        logger.setLevel(level)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0]


def _import(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"engine='ray' needs Ray, which cannot be imported ({error}): pip install 'unialign[ray]'"
        ) from None
