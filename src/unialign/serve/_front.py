"""Check host, origin, token, route, size and admission of a request before its body is read.

The order of the checks is that of `Front._check`. A rejected request is not parsed, and its connection is closed if its
body was not read. Bodies are read into memory, and their sizes are limited while they are read.
"""

import asyncio
import hmac
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from unialign.config import ServeConfig
from unialign.serve._admission import Gone, Lane, RateLimit
from unialign.serve._errors import ApiError, error_body
from unialign.serve._metrics import Metrics

__all__ = ["SECURITY_HEADERS", "Front", "Reading", "Rule"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
# free: answered at once; light: reads items; search: coalesced; heavy: computes.
LaneName = Literal["free", "light", "search", "heavy"]

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "connect-src 'self'; worker-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
SECURITY_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"content-security-policy", CONTENT_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"permissions-policy", b"microphone=(self), camera=(self)"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_LOG = logging.getLogger("unialign.serve")
_FIRST_BYTES = 262_144
_WRITING = ("PUT", "PATCH", "DELETE")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_BEARER = b"bearer "


@dataclass(frozen=True)
class Rule:
    """A route and the checks for it.

    Attributes:
        template: path with names in braces.
        pattern: regular expression of the path.
        methods: allowed methods.
        lane: kind of admission.
        open: whether the route needs no token.
        writes: whether the route changes the index.
        multipart: whether the body is multipart instead of JSON.
    """

    template: str
    pattern: re.Pattern[str]
    methods: tuple[str, ...]
    lane: LaneName = "free"
    open: bool = False
    writes: bool = False
    multipart: bool = False


@dataclass
class _Request:
    id: str
    started: float
    method: str
    path: str
    headers: Mapping[bytes, bytes]
    client: str
    rule: Rule | None = None
    status: int = 0
    sent: int = 0
    received: int = 0
    can_write: bool = False


@dataclass(frozen=True)
class Reading:
    """Sizes and times of bodies; `held` counts the bytes of all bodies in memory."""

    settings: ServeConfig
    held: list[int]


class Front:
    """ASGI middleware that checks requests and passes the accepted ones to an app.

    Args:
        app: the wrapped app.
        rules: its routes.
        settings: limits and permissions.
        token: secret of the header `Authorization: Bearer`, or None for a service without authentication.
        write_token: secret that also allows changes; None: `token` does.
        metrics: counters of requests.
    """

    def __init__(
        self,
        app: App,
        rules: Sequence[Rule],
        settings: ServeConfig,
        *,
        computing: int,
        token: str | None = None,
        write_token: str | None = None,
        metrics: Metrics,
    ) -> None:
        self.app, self.rules, self.settings, self.metrics = app, tuple(rules), settings, metrics
        self._tokens = [(value.encode(), writes) for value, writes in _scopes(token, write_token)]
        wait = settings.wait_seconds
        self.lanes: dict[str, Lane] = {
            "light": Lane(4 * computing, 4 * settings.waiting, wait),
            "search": Lane(max(computing, settings.batch), settings.waiting, wait),
            "heavy": Lane(computing, settings.waiting, wait),
        }
        self._rates = RateLimit(settings.rate, settings.burst, settings.connections)
        self._reading = Reading(settings, [0])
        for name, lane in self.lanes.items():
            metrics.gauge(f"{name}_computing", lambda lane=lane: {"": lane.computing})  # type: ignore[misc]
            metrics.gauge(f"{name}_waiting", lambda lane=lane: {"": lane.queued})  # type: ignore[misc]

    @property
    def authenticates(self) -> bool:
        """Whether clients need a token."""
        return bool(self._tokens)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        request = _Request(
            uuid.uuid4().hex[:16],
            time.perf_counter(),
            scope["method"],
            scope["path"],
            _header_map(scope["headers"]),
            (scope.get("client") or ("", 0))[0],
        )
        answer = _Answer(send, request)
        entered = False
        try:
            self._check_host_and_origin(request)
            if request.method == "OPTIONS":
                await self._preflight(request, answer)
                return
            self._check_token(request)
            rule = self._route(request)
            self._check_write(request, rule)
            self._check_type_and_size(request, rule)
            self._rates.enter(request.client)
            entered = True
            await self._admit(request, rule, scope, receive, answer)
        except ApiError as error:
            self._note(error)
            await answer.error(error)
        except Gone:
            request.status = 499
        except Exception:
            # A response never contains the traceback; the request id identifies it in the log.
            _LOG.exception("request %s failed", request.id)
            await answer.error(ApiError(500, "internal", "the service failed; see its log for the cause"))
        finally:
            if entered:
                self._rates.leave(request.client)
            self._log(request)

    def _check_host_and_origin(self, request: _Request) -> None:
        host = request.headers.get(b"host", b"").decode("latin-1")
        if _host_name(host) not in self.settings.hosts and host.lower() not in self.settings.hosts:
            raise ApiError(421, "foreign_host", "the service does not accept this host name", close=True)
        origin = request.headers.get(b"origin")
        if origin is not None:
            text = origin.decode("latin-1")
            if text.partition("://")[2].lower() != host.lower() and text not in self.settings.origins:
                raise ApiError(403, "foreign_origin", "the service does not accept this origin", close=True)

    async def _preflight(self, request: _Request, answer: "_Answer") -> None:
        origin = request.headers.get(b"origin", b"").decode("latin-1")
        if origin not in self.settings.origins:
            raise ApiError(403, "foreign_origin", "the service does not accept this origin", close=True)
        await answer.plain(
            204,
            (
                (b"access-control-allow-origin", origin.encode()),
                (b"access-control-allow-methods", b"GET, POST, PUT, PATCH, DELETE"),
                (b"access-control-allow-headers", b"authorization, content-type, if-match, x-unialign"),
                (b"access-control-max-age", b"600"),
                (b"vary", b"origin"),
            ),
        )

    def _check_token(self, request: _Request) -> None:
        if not self._tokens:
            request.can_write = True
            return
        matching = [rule for rule in self.rules if rule.pattern.fullmatch(request.path)]
        if any(rule.open for rule in matching):
            return
        if request.path == "/metrics" and request.client in _LOOPBACK:
            return
        header = request.headers.get(b"authorization", b"")
        given = header[len(_BEARER) :].strip() if header[: len(_BEARER)].lower() == _BEARER else b""
        accepted = [writes for value, writes in self._tokens if hmac.compare_digest(value, given)]
        if not accepted:
            problem = "the token is missing" if not given else "the token is wrong"
            raise ApiError(401, "bad_token", f"{problem}; send `Authorization: Bearer TOKEN`", close=True)
        request.can_write = any(accepted)

    def _route(self, request: _Request) -> Rule:
        allowed: list[str] = []
        for rule in self.rules:
            if rule.pattern.fullmatch(request.path):
                if request.method in rule.methods:
                    request.rule = rule
                    return rule
                allowed += rule.methods
        if allowed:
            raise ApiError(405, "bad_method", f"the method must be {' or '.join(sorted(set(allowed)))}", close=True)
        raise ApiError(404, "no_route", "there is no such call", close=True)

    def _check_write(self, request: _Request, rule: Rule) -> None:
        if not rule.writes:
            return
        if not self.settings.writable:
            raise ApiError(403, "read_only", "the service is read-only; start it with --writable", close=True)
        if not request.can_write:
            raise ApiError(403, "read_only", "this token does not allow changes", close=True)

    def _check_type_and_size(self, request: _Request, rule: Rule) -> None:
        length = request.headers.get(b"content-length")
        if length is not None and not length.isdigit():
            raise ApiError(400, "bad_length", "Content-Length must be a number", close=True)
        has_body = b"transfer-encoding" in request.headers or (length is not None and int(length) > 0)
        limit = self._limit(rule)
        if length is not None and int(length) > limit:
            raise _too_large(limit)
        if not has_body:
            return
        kind = request.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        expected = b"multipart/form-data" if rule.multipart else b"application/json"
        if rule.lane in ("free", "light") and request.method == "GET":
            raise ApiError(400, "unexpected_body", "this call has no body", close=True)
        if kind != expected:
            raise ApiError(415, "bad_content_type", f"Content-Type must be {expected.decode()}", close=True)
        if rule.multipart and request.headers.get(b"x-unialign") != b"1":
            # A form on another page could send multipart without a preflight request, but not with this header.
            raise ApiError(403, "missing_header", "multipart requests need the header `X-Unialign: 1`", close=True)

    def _limit(self, rule: Rule) -> int:
        return self.settings.upload_bytes if rule.multipart else self.settings.body_bytes

    async def _admit(self, request: _Request, rule: Rule, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        lane = self.lanes.get(rule.lane)
        if lane is None:
            await self._run(request, scope, b"", asyncio.Event(), answer, None)
            return
        if rule.lane in ("search", "heavy"):
            self._rates.take(request.client)
        lane.enter()
        held = 0
        gone = asyncio.Event()
        watcher: asyncio.Future[None] | None = None
        try:
            body, held = await self._read(request, rule, receive)
            watcher = asyncio.ensure_future(_watch(receive, gone))
            queued = time.perf_counter()
            await lane.start(gone)
            waited = time.perf_counter() - queued
            self.metrics.stage("queue", waited)
            scope.setdefault("state", {})["queued"] = waited
            await self._run(request, scope, body, gone, answer, lane)
        finally:
            self._reading.held[0] -= held
            lane.leave()
            if watcher is not None:
                watcher.cancel()

    async def _run(
        self,
        request: _Request,
        scope: Scope,
        body: bytes,
        gone: asyncio.Event,
        answer: "_Answer",
        lane: Lane | None,
    ) -> None:
        """Call the app, and release its slot when it ends, which may be after a timeout or a disconnect."""
        state = scope.setdefault("state", {})
        state["gone"], state["request_id"] = gone, request.id
        given = False

        async def receive_body() -> Message:
            nonlocal given
            if not given:
                given = True
                return {"type": "http.request", "body": body, "more_body": False}
            await gone.wait()
            return {"type": "http.disconnect"}

        task = asyncio.ensure_future(self.app(scope, receive_body, answer.send))
        if lane is not None:
            task.add_done_callback(lambda _: lane.finish())
        done, _ = await asyncio.wait({task}, timeout=self.settings.request_seconds)
        if not done and answer.started:
            # A long response is being sent; a client that does not read it is disconnected.
            done, _ = await asyncio.wait({task}, timeout=10 * self.settings.request_seconds)
            if not done:
                task.cancel()
                return
        if not done:
            task.add_done_callback(_forget)
            limit = self.settings.request_seconds
            raise ApiError(503, "too_slow", f"the response takes longer than {limit:g} s", limit=limit, retry_after=5)
        if gone.is_set() and isinstance(task.exception(), Gone):
            raise Gone
        if (error := task.exception()) is not None:
            raise error

    async def _read(self, request: _Request, rule: Rule, receive: Receive) -> tuple[bytes, int]:
        """Read the body; raise ApiError if it is too large (413) or too slow (408), and Gone if the client leaves."""
        settings, limit = self.settings, self._limit(rule)
        chunks: list[bytes] = []
        held = 0
        started = time.monotonic()
        try:
            while True:
                # The time limit grows with the number of received bytes.
                extra = max(0, request.received - _FIRST_BYTES) / settings.body_rate
                left = started + settings.body_seconds + extra - time.monotonic()
                try:
                    message = await asyncio.wait_for(receive(), max(left, 0.001))
                except TimeoutError:
                    raise ApiError(408, "slow_body", "the request body arrives too slowly", close=True) from None
                if message["type"] == "http.disconnect":
                    raise Gone
                chunk = message.get("body", b"")
                request.received += len(chunk)
                if request.received > limit:
                    raise _too_large(limit)
                if self._reading.held[0] + len(chunk) > settings.buffered_bytes:
                    raise ApiError(503, "busy", "too many request bodies are being read", retry_after=2, close=True)
                self._reading.held[0] += len(chunk)
                held += len(chunk)
                chunks.append(chunk)
                if not message.get("more_body", False):
                    return b"".join(chunks), held
        except BaseException:
            self._reading.held[0] -= held
            raise

    def _note(self, error: ApiError) -> None:
        if error.status in (401, 403, 408, 413, 421, 429, 503):
            self.metrics.count("rejected", error.code)

    def _log(self, request: _Request) -> None:
        seconds = time.perf_counter() - request.started
        if request.status == 499:
            self.metrics.count("cancelled")
        route = request.rule.template if request.rule is not None else "(none)"
        self.metrics.request(route, request.method if request.rule is not None else "", request.status, seconds)
        _LOG.info(
            "%s %s %d %.1f ms, %d bytes in, %d out, %s",
            request.method,
            route,
            request.status,
            1000 * seconds,
            request.received,
            request.sent,
            request.id,
        )


class _Answer:
    """Add headers to the response, and send errors unless a response has started."""

    def __init__(self, send: Send, request: _Request) -> None:
        self._send, self._request = send, request
        self.started = False
        self._closed = False

    async def send(self, message: Message) -> None:
        if self._closed:
            return
        if message["type"] == "http.response.start":
            self.started = True
            self._request.status = message["status"]
            message = {**message, "headers": [*message.get("headers", ()), *self._extra(message)]}
        elif message["type"] == "http.response.body":
            self._request.sent += len(message.get("body", b""))
        await self._send(message)

    def _extra(self, message: Message) -> list[tuple[bytes, bytes]]:
        names = {name.lower() for name, _ in message.get("headers", ())}
        found = [(b"x-request-id", self._request.id.encode()), *SECURITY_HEADERS]
        if b"cache-control" not in names:
            found.append((b"cache-control", b"no-store"))
        origin = self._request.headers.get(b"origin")
        if origin is not None:
            # Only exact, allowed origins reach this point.
            found += [(b"access-control-allow-origin", origin), (b"vary", b"origin")]
        return found

    async def error(self, error: ApiError) -> None:
        if self.started or self._closed:
            return
        body = error_body(error, self._request.id)
        headers = [(b"content-type", b"application/json")]
        if error.retry_after is not None:
            headers.append((b"retry-after", str(error.retry_after).encode()))
        if error.status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        if error.close:
            headers.append((b"connection", b"close"))
        await self.plain(error.status, headers, body)

    async def plain(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes = b"") -> None:
        length = (b"content-length", str(len(body)).encode())
        # A 403 is sent before the origin is accepted, so it must not allow that origin.
        try:
            if status in (403, 421):
                self.started, self._request.status = True, status
                extra = (
                    (b"x-request-id", self._request.id.encode()),
                    *SECURITY_HEADERS,
                    (b"cache-control", b"no-store"),
                )
                await self._send(
                    {"type": "http.response.start", "status": status, "headers": [*headers, length, *extra]}
                )
            else:
                await self.send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
            self._request.sent += len(body)
            await self._send({"type": "http.response.body", "body": body})
        finally:
            self._closed = True


def _header_map(headers: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        name = name.lower()
        # A proxy could interpret duplicate hosts, tokens or lengths differently.
        found[name] = value if name not in found else found[name] + b", " + value
    return found


def _host_name(host: str) -> str:
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if re.search(r":\d*$", host) else host


def _scopes(token: str | None, write_token: str | None) -> list[tuple[str, bool]]:
    found = []
    if token is not None:
        found.append((token, write_token is None))
    if write_token is not None:
        found.append((write_token, True))
    return found


def _too_large(limit: int) -> ApiError:
    return ApiError(413, "too_large", f"the body is larger than {limit:,} bytes", limit=limit, close=True)


async def _watch(receive: Receive, gone: asyncio.Event) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    gone.set()


def _forget(task: asyncio.Future[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        _LOG.error("a computation that took too long failed: %s", type(task.exception()).__name__)
