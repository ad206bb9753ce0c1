"""Run the service with uvicorn."""

import asyncio
import os
import secrets
import socket
import stat
from collections.abc import Callable
from typing import Any

from unialign._optional import optional_module
from unialign.errors import ConfigError
from unialign.serve._front import Front

__all__ = ["Address", "new_token", "read_tokens", "run"]

LOOPBACK = ("127.0.0.1", "::1", "localhost")
_TOKEN_BYTES = 32
# Number of ports to try in order to suggest a free one.
_TRIED = 100


class Address:
    """Address of a running service.

    Attributes:
        host, port: as bound.
        token: secret of the page, or None.
    """

    def __init__(self, host: str, port: int, token: str | None) -> None:
        self.host, self.port, self.token = host, port, token

    @property
    def url(self) -> str:
        """Address without the token."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/"

    @property
    def link(self) -> str:
        """Address of the page; the token is in the fragment, which browsers do not send."""
        return self.url if self.token is None else f"{self.url}#token={self.token}"


def new_token() -> str:
    """Return a secret of 32 random bytes."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def read_tokens(path: str | os.PathLike[str]) -> tuple[str, str | None]:
    """Read a token file: one token, or lines `read TOKEN` and `write TOKEN`.

    Returns:
        The token for reading, and the one for changes or None.

    Raises:
        ConfigError: the file cannot be read, other users can read it, or it has other contents.
    """
    try:
        with open(path, encoding="ascii") as file:
            # Only on POSIX does the file mode describe read access.
            if os.name == "posix" and stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise ConfigError(f"other users can read the token file {str(path)!r}; run chmod 600 on it")
            lines = [line.split() for line in file.read(10_000).splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the token file {str(path)!r} cannot be read ({error})") from None
    if len(lines) == 1 and len(lines[0]) == 1:
        return _checked(lines[0][0], path), None
    found: dict[str, str] = {}
    for line in lines:
        if len(line) != 2 or line[0] not in ("read", "write") or line[0] in found:
            raise ConfigError(f"the token file {str(path)!r} must have one token, or lines `read TOKEN`, `write TOKEN`")
        found[line[0]] = _checked(line[1], path)
    if "read" not in found:
        raise ConfigError(f"the token file {str(path)!r} has no line `read TOKEN`")
    return found["read"], found.get("write")


def _checked(token: str, path: str | os.PathLike[str]) -> str:
    if len(token) < 16:
        raise ConfigError(f"a token of {str(path)!r} has {len(token)} characters; expected at least 16")
    return token


def run(
    app: Front,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    ready: Callable[[Address], None] | None = None,
) -> None:
    """Serve an app until SIGINT or SIGTERM; requests in progress get `drain_seconds` to end.

    Args:
        app: app of `ua.serve.app`.
        host: address to listen on. One that other computers can reach requires an app with a token.
        port: port; 0 chooses a free one.
        token: the token of the app, for the link that is passed to `ready`.
        ready: called with the address when the service listens.

    Raises:
        ConfigError: the port is taken or not allowed, the host is not an address of this computer, or an app without a
            token would be reachable from other computers.
        MissingDependencyError: uvicorn is not installed.
    """
    uvicorn = optional_module("uvicorn", "the service", "serve")
    if host not in LOOPBACK and not app.authenticates:
        raise ConfigError(
            f"other computers can reach the service at {host!r}, so it needs a token: --token-file FILE, or "
            "UNIALIGN_TOKEN"
        )
    listener = _listen(host, port)
    bound = listener.getsockname()[1]
    settings = app.settings
    configured = uvicorn.Config(
        app,
        http=_protocol(settings.header_seconds),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
        h11_max_incomplete_event_size=65_536,
        proxy_headers=False,
    )
    server = uvicorn.Server(configured)
    address = Address(host, bound, token)

    async def serve() -> None:
        task = asyncio.ensure_future(server.serve(sockets=[listener]))
        while not server.started and not task.done():
            await asyncio.sleep(0.01)
        if ready is not None and not task.done():
            ready(address)
        await task

    try:
        asyncio.run(serve())
    except KeyboardInterrupt:
        pass  # uvicorn raises the signal again after the drain
    finally:
        listener.close()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, OverflowError) as error:
        raise ConfigError(f"{host!r} port {port} is not an address ({error})") from None
    # With the protocol number, asyncio sets TCP_NODELAY: small responses are sent at once instead of after 40 ms.
    listener = socket.socket(family[0], socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(family[4])
        listener.listen(2048)
    except (OSError, OverflowError) as error:
        listener.close()
        free = _next_free(family[0], host, port)
        hint = f"; port {free} is free: --port {free}" if free is not None else ""
        raise ConfigError(f"cannot listen on {host} port {port} ({_reason(error)}){hint}") from None
    listener.setblocking(False)
    return listener


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _next_free(family: int, host: str, port: int) -> int | None:
    for tried in range(port + 1, min(port + _TRIED, 65_536)):
        with socket.socket(family, socket.SOCK_STREAM) as one:
            try:
                one.bind((host, tried))
            except OSError:
                continue
            return tried
    return None


def _protocol(seconds: float) -> Any:
    """Return uvicorn's protocol with a time limit for the header of each request."""
    base = optional_module("uvicorn.protocols.http.httptools_impl", "the service", "serve").HttpToolsProtocol

    class TimedProtocol(base):  # type: ignore[misc, valid-type]
        _timer: Any = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._arm()

        def data_received(self, data: bytes) -> None:
            # The time limit of a further request starts at its first byte.
            if self._timer is None and (self.cycle is None or self.cycle.response_complete):
                self._arm()
            super().data_received(data)

        def on_headers_complete(self) -> None:
            self._disarm()
            super().on_headers_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self._disarm()
            super().connection_lost(exc)

        def _arm(self) -> None:
            self._disarm()
            self._timer = self.loop.call_later(seconds, self._too_slow)

        def _disarm(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _too_slow(self) -> None:
            self._timer = None
            if self.transport is not None and not self.transport.is_closing():
                self.transport.write(b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
                self.transport.close()

    return TimedProtocol


def print_address(address: Address) -> None:
    """Print the link of the page."""
    print(address.link, flush=True)
