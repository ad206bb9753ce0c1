"""Measure the service under load over the loopback: `python -m benchmarks.serve`.

A service with an index of random rows runs in a process of its own. Clients in another process send searches for items
over 1 to 1,024 connections that stay open, each the next one when the answer has arrived; a client that gets 503 waits
1 s and connects again. Reported are answers per second, latencies, and processor time of the service, and

- the median latency over one connection, divided by that of the same call in the process;
- answers per second over four times as many connections as gave most answers, divided by the most answers per second;
- answers per second over 32 connections, divided by those of a service that computes searches one by one.

    python -m benchmarks.serve                             about 2 minutes
    python -m benchmarks.serve --items 2000 --seconds 1    a trial

The exit status is 1 if a ratio misses its target. Requires `unialign[serve]`, on Linux.
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "serve.json"
CONNECTIONS = (1, 8, 32, 128, 256, 512, 1024)
MOST_LATENCY, LEAST_GOODPUT, LEAST_GAIN = 3.0, 0.7, 2.0
CALLS, WARM_UP, RETRY_SECONDS = 300, 0.5, 1.0
KEYS = 500


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--service", help=argparse.SUPPRESS)
    parser.add_argument("--calls", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def make_index(chosen: argparse.Namespace) -> Any:
    import numpy as np

    import unialign as ua

    generator = np.random.default_rng(0)
    shared_ND = generator.standard_normal((chosen.items, chosen.dim), dtype=np.float32)
    rows = {name: shared_ND + 2 * generator.standard_normal(shared_ND.shape, dtype=np.float32) for name in ("a", "b")}
    present = {"a": np.ones(chosen.items, bool), "b": generator.random(chosen.items) < 0.7}
    rows = {name: z / np.linalg.norm(z, axis=1, keepdims=True) for name, z in rows.items()}
    store = ua.data.EmbeddingStore.from_arrays(rows, present=present)
    return ua.Index.from_store(store)


def serve(chosen: argparse.Namespace) -> None:
    """Print the port, and serve until the process is stopped."""
    import torch

    import unialign as ua

    torch.set_num_threads(1)
    app = ua.serve.app(make_index(chosen), burst=0, connections=0, **json.loads(chosen.service))
    ua.serve.run(app, port=0, ready=lambda address: print(address.port, flush=True))


def time_calls(chosen: argparse.Namespace) -> None:
    """Print the median seconds of a call in the process."""
    import torch

    import unialign as ua

    torch.set_num_threads(1)
    index, seconds = make_index(chosen), []
    for number in range(CALLS):
        started = time.perf_counter()
        index.search(ua.query(item=str(number % KEYS)), k=10)
        seconds.append(time.perf_counter() - started)
    print(statistics.median(seconds))


def child(chosen: argparse.Namespace, *arguments: str) -> list[str]:
    sizes = ("--items", str(chosen.items), "--dim", str(chosen.dim))
    return [sys.executable, "-m", "benchmarks.serve", *sizes, *arguments]


@contextlib.contextmanager
def service(chosen: argparse.Namespace, **settings: Any) -> Iterator[tuple[int, int]]:
    """Yield the port and the process id of a service."""
    command = child(chosen, "--service", json.dumps(settings))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline()), process.pid
        finally:
            process.terminate()


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def load(port: int, connections: int, seconds: float) -> dict[str, Any]:
    """Send searches over connections in a closed loop."""
    latencies: list[float] = []
    refused = 0
    start = time.perf_counter() + WARM_UP
    end = start + seconds

    async def client(first: int) -> None:
        nonlocal refused
        reader = writer = None
        number = first
        while time.perf_counter() < end:
            if writer is None:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            number += 1
            body = json.dumps({"parts": [{"item": str(number % KEYS)}], "k": 10}).encode()
            head = f"Host: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            sent = time.perf_counter()
            writer.write(f"POST /api/v1/search HTTP/1.1\r\n{head}".encode() + body)
            assert reader is not None
            status = await answer_status(reader)
            received = time.perf_counter()
            if status == 200:
                if start <= received <= end:
                    latencies.append(received - sent)
                continue
            assert status == 503, status
            refused += start <= received <= end
            writer.close()
            reader = writer = None
            await asyncio.sleep(RETRY_SECONDS)
        if writer is not None:
            writer.close()

    await asyncio.gather(*(client(17 * number) for number in range(connections)))
    latencies.sort()
    at = lambda share: 1000 * latencies[min(len(latencies) - 1, int(share * len(latencies)))]  # noqa: E731
    return {
        "connections": connections,
        "answers_per_second": len(latencies) / seconds,
        "refused_per_second": refused / seconds,
        "p50_ms": at(0.5),
        "p99_ms": at(0.99),
    }


async def answer_status(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
    await reader.readexactly(length)
    return int(head.split(b" ", 2)[1])


def measure(chosen: argparse.Namespace, counts: tuple[int, ...], **settings: Any) -> list[dict[str, Any]]:
    rows = []
    with service(chosen, **settings) as (port, pid):
        for connections in counts:
            before = cpu_seconds(pid)
            row = asyncio.run(load(port, connections, chosen.seconds))
            row["cpu_share"] = (cpu_seconds(pid) - before) / (chosen.seconds + WARM_UP)
            rows.append(row)
            numbers = ", ".join(f"{name} {value:.1f}" for name, value in row.items() if name != "connections")
            print(f"{connections} connections: {numbers}", flush=True)
    return rows


def _overload(saturation: int) -> int:
    return min(count for count in CONNECTIONS if count >= 4 * saturation)


def main() -> int:
    chosen = options()
    if chosen.service:
        serve(chosen)
        return 0
    if chosen.calls:
        time_calls(chosen)
        return 0
    called = float(subprocess.run(child(chosen, "--calls"), cwd=ROOT, check=True, capture_output=True).stdout)
    together = measure(chosen, CONNECTIONS)
    alone = measure(chosen, (32,), batch=1)
    rates = {row["connections"]: row["answers_per_second"] for row in together}
    # The last counts are reserved for the overload.
    saturation = max(CONNECTIONS[:-2], key=lambda count: rates[count])
    ratios = {
        "latency_to_call": together[0]["p50_ms"] / (1000 * called),
        "goodput": rates[_overload(saturation)] / rates[saturation],
        "coalescing": rates[32] / alone[0]["answers_per_second"],
    }
    result = {
        "items": chosen.items,
        "dim": chosen.dim,
        "call_ms": 1000 * called,
        "together": together,
        "one_by_one": alone,
        "saturation_connections": saturation,
        "ratios": ratios,
        "targets": {"latency_to_call": MOST_LATENCY, "goodput": LEAST_GOODPUT, "coalescing": LEAST_GAIN},
        "versions": {name: version(name) for name in ("torch", "fastapi", "uvicorn")},
        "cores": os.cpu_count(),
    }
    chosen.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(f"call in the process: {1000 * called:.2f} ms; ratios: {ratios}")
    good = (
        ratios["latency_to_call"] <= MOST_LATENCY
        and ratios["goodput"] >= LEAST_GOODPUT
        and ratios["coalescing"] >= LEAST_GAIN
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
