"""State that the routes of a service share: indexes, settings, workers, jobs and metrics."""

import asyncio
import os
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from unialign._checks import suggestion
from unialign.config import ServeConfig
from unialign.errors import ConfigError
from unialign.index import Index
from unialign.serve._errors import ApiError
from unialign.serve._guard import Guard
from unialign.serve._jobs import Jobs
from unialign.serve._metrics import Metrics

__all__ = ["Decoding", "Service", "make_service"]

_Answer = TypeVar("_Answer")
_NAME = re.compile(r"[\w.\- ]{1,100}")


@dataclass(frozen=True)
class Decoding:
    """A decoder of images with its space and data.

    Attributes:
        decoder: the decoder.
        space: space with a frozen anchor, in which mixtures are decoded; may differ from the space of an index.
        store: features of the items of the indexes, and the training items to compare generated images with.
    """

    decoder: Any
    space: Any
    store: Any


@dataclass
class Service:
    """State of a service.

    Attributes:
        indexes: name -> index; the first is the default of requests.
        settings: limits and permissions.
        metrics: counters.
        jobs: computations that outlast a request.
        decoding: the decoder, or None.
        heavy: threads for computations.
        light: threads for reading items and media.
        state: objects that routes store.
        guards: name -> guard of the index: `with service.guards[name].reading():` around searches.
    """

    indexes: Mapping[str, Index]
    settings: ServeConfig
    metrics: Metrics
    jobs: Jobs
    computing: int
    decoding: Decoding | None
    heavy: ThreadPoolExecutor
    light: ThreadPoolExecutor
    state: dict[str, Any] = field(default_factory=dict)
    guards: dict[str, Guard] = field(default_factory=dict)

    def index(self, name: str | None) -> tuple[str, Index]:
        """Return the named index, or the first; raise ApiError 404 if there is none with this name."""
        if name is None:
            return next(iter(self.indexes.items()))
        if name not in self.indexes:
            hint = suggestion(name, list(self.indexes))
            raise ApiError(404, "no_index", f"there is no index {name[:100]!r}{hint}", field="index")
        return name, self.indexes[name]

    async def compute(self, function: Callable[..., _Answer], *arguments: Any) -> _Answer:
        """Run a computation in a worker thread."""
        return await asyncio.get_running_loop().run_in_executor(self.heavy, function, *arguments)

    async def read(self, function: Callable[..., _Answer], *arguments: Any) -> _Answer:
        """Run a short read in a separate thread, so that it does not wait for computations."""
        return await asyncio.get_running_loop().run_in_executor(self.light, function, *arguments)

    def close(self) -> None:
        """Stop the workers; running computations end."""
        self.jobs.close()
        self.heavy.shutdown(wait=False, cancel_futures=True)
        self.light.shutdown(wait=False, cancel_futures=True)


def make_service(
    index: Index | Mapping[str, Index], settings: ServeConfig, decoding: Decoding | None, metrics: Metrics
) -> Service:
    indexes = dict(index) if isinstance(index, Mapping) else {"index": index}
    if not indexes:
        raise ConfigError("the service needs at least one index")
    for name in indexes:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigError(f"the name of an index must have 1 to 100 letters, digits, '.', '_', '-', got {name!r}")
    computing = settings.computing or os.cpu_count() or 1
    metrics.gauge("items", lambda: {name: len(one) for name, one in indexes.items()})
    metrics.gauge("generation", lambda: {name: one.generation for name, one in indexes.items()})
    return Service(
        indexes,
        settings,
        metrics,
        Jobs(settings.jobs_waiting, settings.job_seconds),
        computing,
        decoding,
        ThreadPoolExecutor(computing, "unialign-compute"),
        ThreadPoolExecutor(4, "unialign-read"),
        guards={name: Guard(one, settings.wait_seconds, writable=settings.writable) for name, one in indexes.items()},
    )
