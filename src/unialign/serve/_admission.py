"""Admission control: slots for computations, a bounded queue, and limits for each client."""

import asyncio
import time
from collections import OrderedDict, deque
from typing import Any

from unialign.serve._errors import ApiError

__all__ = ["Gone", "Lane", "RateLimit"]

# Number of clients whose limits are kept in memory.
_MOST_CLIENTS = 10_000


class Gone(Exception):
    """The client closed the connection before the computation."""


class Lane:
    """Limit the number of computing requests and the number of waiting requests.

    `enter` is called before the body is read and fails at once when the lane is full; `start` waits for a slot. All
    methods must be called in the event loop.
    """

    def __init__(self, computing: int, waiting: int, wait_seconds: float) -> None:
        self.most, self.capacity, self.wait_seconds = computing, computing + waiting, wait_seconds
        self.inside = 0
        self.computing = 0
        self._queue: deque[asyncio.Future[Any]] = deque()

    @property
    def queued(self) -> int:
        """Number of requests that wait for a slot."""
        return sum(not future.done() for future in self._queue)

    def enter(self) -> None:
        """Raise ApiError 503 if the lane is full."""
        if self.inside >= self.capacity:
            raise self._busy()
        self.inside += 1

    def leave(self) -> None:
        self.inside -= 1

    async def start(self, gone: asyncio.Event) -> None:
        """Wait for a slot; raise ApiError 503 after `wait_seconds`, and Gone if the client leaves."""
        if self.computing < self.most and not self._queue:
            self.computing += 1
            return
        place: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._queue.append(place)
        left: asyncio.Future[Any] = asyncio.ensure_future(gone.wait())
        try:
            await asyncio.wait([place, left], timeout=self.wait_seconds, return_when=asyncio.FIRST_COMPLETED)
            if gone.is_set():
                raise Gone
            if not place.done():
                raise self._busy()
        except BaseException:
            if place.done() and not place.cancelled():
                # This request got the slot while its client disconnected.
                self.finish()
            else:
                place.cancel()
            raise
        finally:
            left.cancel()

    def finish(self) -> None:
        """Pass the slot to the next request."""
        while self._queue:
            place = self._queue.popleft()
            if not place.done():
                place.set_result(None)
                return
        self.computing -= 1

    def _busy(self) -> ApiError:
        seconds = max(1, round(self.wait_seconds))
        return ApiError(
            503, "busy", f"the service is busy; repeat the request in {seconds} s", retry_after=seconds, close=True
        )


class RateLimit:
    """Token buckets and counts of requests in progress, by client address."""

    def __init__(self, rate: float, burst: int, connections: int) -> None:
        self._rate, self._burst, self._connections = rate, burst, connections
        self._tokens: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._active: dict[str, int] = {}

    def enter(self, client: str) -> None:
        """Count a request in progress; raise ApiError 429 above the limit."""
        active = self._active.get(client, 0)
        if self._connections and active >= self._connections:
            raise ApiError(
                429,
                "too_many_connections",
                f"{active} requests of this client are in progress; the limit is {self._connections}",
                limit=self._connections,
                retry_after=1,
                close=True,
            )
        self._active[client] = active + 1

    def leave(self, client: str) -> None:
        active = self._active.get(client, 1) - 1
        if active:
            self._active[client] = active
        else:
            self._active.pop(client, None)

    def take(self, client: str) -> None:
        """Take a token for a computing request; raise ApiError 429 if there is none."""
        if not self._burst:
            return
        now = time.monotonic()
        tokens, then = self._tokens.pop(client, (float(self._burst), now))
        tokens = min(float(self._burst), tokens + (now - then) * self._rate)
        allowed = tokens >= 1
        self._tokens[client] = (tokens - 1 if allowed else tokens, now)
        while len(self._tokens) > _MOST_CLIENTS:
            self._tokens.popitem(last=False)
        if not allowed:
            raise ApiError(
                429,
                "too_many_requests",
                f"the limit is {self._rate:g} requests per second",
                limit=self._rate,
                retry_after=max(1, round((1 - tokens) / self._rate)),
                close=True,
            )
