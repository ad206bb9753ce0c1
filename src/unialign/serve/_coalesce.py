"""Coalescing: combine waiting searches with equal options into one call of `index.search`.

A search starts at once if no other one is running, so a single client has no delay. Searches that arrive while a batch
is computed wait, and start together when it ends.
"""

import asyncio
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

from unialign.errors import UniAlignError
from unialign.index import Found, Index, Query
from unialign.serve._admission import Gone
from unialign.serve._metrics import Metrics

__all__ = ["Coalescer"]


@dataclass
class _Waiting:
    query: Query
    finish: Callable[[Found], Any]
    future: asyncio.Future[Any]
    gone: asyncio.Event


@dataclass
class _Group:
    name: str
    index: Index
    options: Mapping[str, Any]
    waiting: list[_Waiting] = field(default_factory=list)
    running: int = 0


class Coalescer:
    """Collect searches by index and options; used in one event loop."""

    def __init__(
        self,
        executor: Executor,
        metrics: Metrics,
        *,
        batch: int,
        search: Callable[[str, Index, Sequence[Query], Mapping[str, Any]], list[Found]],
    ) -> None:
        self._executor, self._metrics, self._batch, self._search = executor, metrics, batch, search
        self._groups: dict[Hashable, _Group] = {}

    async def submit(
        self,
        name: str,
        index: Index,
        query: Query,
        options: Mapping[str, Any],
        gone: asyncio.Event,
        finish: Callable[[Found], Any],
    ) -> Any:
        """Search, in a batch with other queries if there are any, and return `finish(result)`."""
        key = (name, *((option, _hashable(value)) for option, value in sorted(options.items())))
        group = self._groups.setdefault(key, _Group(name, index, options))
        waiting = _Waiting(query, finish, asyncio.get_running_loop().create_future(), gone)
        group.waiting.append(waiting)
        if not group.running:
            # Requests that arrive together share a batch, since it starts after the pending events of the loop.
            group.running += 1
            asyncio.get_running_loop().create_task(self._drain(key, group))  # kept alive by `group`
        return await waiting.future

    async def _drain(self, key: Hashable, group: _Group) -> None:
        try:
            while group.waiting:
                batch, group.waiting = group.waiting[: self._batch], group.waiting[self._batch :]
                await self._compute(group, batch)
        finally:
            group.running -= 1
            self._groups.pop(key, None)

    async def _compute(self, group: _Group, batch: Sequence[_Waiting]) -> None:
        for one in batch:
            if one.gone.is_set() and not one.future.done():
                one.future.set_exception(Gone())
        batch = [one for one in batch if not one.future.done()]
        if not batch:
            return
        loop = asyncio.get_running_loop()
        started = time.perf_counter()
        results = await loop.run_in_executor(self._executor, self._finished, group, batch)
        self._metrics.stage("search", time.perf_counter() - started)
        self._metrics.count("batches")
        self._metrics.count("searches", amount=len(batch))
        for one, result in zip(batch, results, strict=True):
            if one.future.done():
                continue
            if isinstance(result, BaseException):
                one.future.set_exception(result)
            else:
                one.future.set_result(result)

    def _finished(self, group: _Group, batch: Sequence[_Waiting]) -> list[Any]:
        # In the same thread, since each thread switch costs time.
        return [
            found if isinstance(found, BaseException) else _caught(one.finish, found)
            for one, found in zip(batch, self._results(group, [one.query for one in batch]), strict=True)
        ]

    def _results(self, group: _Group, queries: Sequence[Query]) -> list[Found | BaseException]:
        try:
            return list(self._search(group.name, group.index, queries, group.options))
        except Exception as error:
            if len(queries) == 1:
                return [error]
            if not isinstance(error, UniAlignError):
                return [error] * len(queries)
        # One invalid query must not fail the others.
        return [result for query in queries for result in self._results(group, [query])]


def _caught(finish: Callable[[Found], Any], found: Found) -> Any:
    try:
        return finish(found)
    except Exception as error:
        return error


def _hashable(value: Any) -> Hashable:
    return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else value
