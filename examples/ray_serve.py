"""Serve an index with several replicas on Ray Serve, with a bounded queue.

Run with `pip install "ray[serve]" "unialign[serve]"`, then `python examples/ray_serve.py INDEX`, where INDEX is a
folder of `unialign index`. Each replica opens the index read-only. Ray routes requests to replicas; the service of
unialign checks them and limits their number within each replica.
"""

import sys
from typing import Any

from ray import serve

import unialign as ua

REPLICAS = 2
PORT = 8000


def deployment(path: str, *, replicas: int = REPLICAS) -> Any:
    """Return an application of Ray Serve that serves the index at a path."""

    def application() -> Any:
        # Built in the replica, since an open index cannot be sent to another process. Limits per client are off, since
        # replicas do not see the addresses of clients.
        return ua.serve.app(ua.Index.open(path), burst=0, connections=0)

    @serve.deployment(
        num_replicas=replicas,
        max_ongoing_requests=16,
        # Requests beyond this number get an answer with status 503 at once.
        max_queued_requests=64,
        ray_actor_options={"num_cpus": 0.5},
    )
    @serve.ingress(application)
    class Search:
        pass

    return Search.bind()


def main(path: str) -> None:
    """Serve until the process is stopped."""
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    serve.run(deployment(path), blocking=True)


if __name__ == "__main__":
    main(sys.argv[1])
