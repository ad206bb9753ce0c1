"""Serve an index for tests in a process of its own: python run_service.py INDEX SETTINGS, with settings in JSON.

Prints the link when it listens. No connection to another address than the loopback can be opened: `socket.connect`
raises, and the service ends with status 3.
"""

import json
import os
import sys
from typing import Any


def guard(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("socket.connect", "socket.sendto") or (event == "socket.getaddrinfo" and arguments[0] not in LOCAL):
        print(f"outgoing connection: {event} {arguments[1:]}", file=sys.stderr, flush=True)
        os._exit(3)


LOCAL = ("127.0.0.1", "localhost", "::1", None)


def main(folder: str, settings: dict[str, Any]) -> None:
    import unialign as ua

    slow = settings.pop("slow", 0.0)
    token = settings.pop("token", None)
    if slow:
        import time

        search = ua.Index.search

        def delayed(*arguments: Any, **options: Any) -> Any:
            time.sleep(slow)
            return search(*arguments, **options)

        ua.Index.search = delayed  # type: ignore[method-assign]
    with ua.Index.open(folder) as index:
        served = ua.serve.app(index, token=token, **settings)
        sys.addaudithook(guard)
        ua.serve.run(served, port=0, token=token, ready=lambda address: print(address.link, flush=True))
    print("ended", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
