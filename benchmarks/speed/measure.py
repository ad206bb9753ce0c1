"""Measure one case in a separate process, forked from a process that has imported torch but not used it.

A step is a forward and a backward pass from unit rows to their gradients. The results are the best and the median
processor and wall time, the peak resident memory above the baseline before the inputs are created, the bytes kept for
the backward pass, and the errors compared with float64.
"""

import multiprocessing
import os
import resource
import signal
import statistics
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.saved_bytes import saved_bytes
from benchmarks.speed.exact import tangent
from benchmarks.speed.inputs import draw

__all__ = ["BUDGET", "GIGABYTE", "REPEATS", "in_process", "measure"]

GIGABYTE = 10**9
BUDGET, REPEATS, WARM, KEPT_UP_TO = 3.0, 15, 4096, 4096
SAMPLE_SECONDS = 0.01
PAGE = resource.getpagesize()
Function = Callable[..., Tensor]


def resident() -> int:
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * PAGE


def load_libraries() -> None:
    """Exclude the memory of the libraries that torch loads in the first product and backward pass (20 MB)."""
    z_BD = torch.ones(64, 64, requires_grad=True)
    (z_BD @ z_BD.mT).exp().sum().backward()


class Sampler:
    def __init__(self) -> None:
        self.largest = resident()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Sampler":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.largest = max(self.largest, resident())

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            self.largest = max(self.largest, resident())


def measure(
    make: Callable[[], Function],
    *,
    modalities: int,
    items: int,
    dim: int,
    threads: int,
    steps_itself: bool = False,
    compiled: bool = False,
    exact_file: Path | None = None,
    in_double: bool = False,
) -> dict[str, Any]:
    torch.set_num_threads(threads)
    function = make()
    before_libraries = resident()
    load_libraries()
    baseline = resident()
    rows = draw(modalities, items, dim)

    def step(leaves: list[Tensor]) -> tuple[float, float, float]:
        for z in leaves:
            z.grad = None
        wall, cpu = time.perf_counter(), time.process_time()
        value = function(*leaves)
        if not steps_itself:
            value.backward()
        return value.item(), time.process_time() - cpu, time.perf_counter() - wall

    _, first_cpu, first_wall = step(rows if items <= WARM or compiled else draw(modalities, 256, dim))
    cpus: list[float] = []
    walls: list[float] = []
    started = time.perf_counter()
    with Sampler() as sampler:
        while not cpus or (len(cpus) < REPEATS and time.perf_counter() - started < BUDGET):
            value, cpu, wall = step(rows)
            cpus.append(cpu)
            walls.append(wall)
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    result: dict[str, Any] = {
        "status": "measured",
        "repetitions": len(cpus),
        "cpu_seconds": {"best": min(cpus), "median": statistics.median(cpus)},
        "wall_seconds": {"best": min(walls), "median": statistics.median(walls)},
        "first_step_seconds": {"cpu": first_cpu, "wall": first_wall},
        "memory": {
            "baseline": baseline,
            "libraries": baseline - before_libraries,
            "peak": highest - baseline,
            "sampled_peak": sampler.largest - baseline,
            "whole_process": highest,
            "inputs": sum(z.nbytes for z in rows),
        },
        "value": value,
    }
    if exact_file is not None and exact_file.exists():
        result["error"] = errors(value, rows, torch.load(exact_file))
    if in_double:
        result["error"] = errors(value, rows, double(function, rows))
    for z in rows:
        z.grad = None
    kept = items <= KEPT_UP_TO and not steps_itself
    result["bytes_kept"] = saved_bytes(lambda: function(*rows)) if kept else None
    return result


def double(function: Function, rows: list[Tensor]) -> dict[str, Any]:
    leaves = [z.detach().double().requires_grad_() for z in rows]
    value = function(*leaves)
    gradients = torch.autograd.grad(value, leaves)
    along = [tangent(z.detach(), gradient) for z, gradient in zip(leaves, gradients, strict=True)]
    return {"value": value.item(), "gradients": along}


def errors(value: float, rows: list[Tensor], exact: dict[str, Any]) -> dict[str, float]:
    """By norm (of the difference over the norm) and by entry (largest difference over the largest entry)."""
    pairs = [
        (tangent(z.detach().double(), z.grad.double()), expected)
        for z, expected in zip(rows, exact["gradients"], strict=True)
        if z.grad is not None
    ]
    differences = [(got - expected) for got, expected in pairs]
    norm = sum(float(expected.square().sum()) for _, expected in pairs) ** 0.5
    largest = max(float(expected.abs().max()) for _, expected in pairs)
    return {
        "value": abs(value - exact["value"]) / abs(exact["value"]),
        "gradient": sum(float(d.square().sum()) for d in differences) ** 0.5 / norm,
        "gradient_largest": max(float(d.abs().max()) for d in differences) / largest,
    }


def in_process(work: Callable[[], dict[str, Any]], *, seconds: float, gigabytes: float) -> dict[str, Any]:
    """Return the reason if the process dies."""
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    child = fork.Process(target=_run, args=(work, sender, gigabytes), daemon=False)
    child.start()
    sender.close()
    try:
        if not receiver.poll(seconds):
            os.kill(child.pid or 0, signal.SIGKILL)
            return {"status": "time", "reason": f"more than {seconds:.0f} s"}
        result: dict[str, Any] = receiver.recv()
        return result
    except EOFError:
        child.join()
        return {"status": "memory" if child.exitcode == -signal.SIGKILL else "failed", "reason": _ended(child.exitcode)}
    finally:
        child.join()
        receiver.close()


def _ended(code: int | None) -> str:
    return f"its process exited with {code}"


def _run(work: Callable[[], dict[str, Any]], sender: Any, gigabytes: float) -> None:
    limit = int(gigabytes * GIGABYTE) + resident()
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    try:
        result = work()
    except MemoryError:
        result = {"status": "memory", "reason": f"more than {gigabytes:g} GB"}
    except ImportError as error:
        result = {"status": "absent", "reason": f"not installed: {error.name}"}
    except RuntimeError as error:
        short = "allocate" in str(error) or "out of memory" in str(error)
        if not short:
            traceback.print_exc()
        reason = f"more than {gigabytes:g} GB" if short else _line(error)
        result = {"status": "memory" if short else "failed", "reason": reason}
    except Exception as error:
        traceback.print_exc()
        result = {"status": "failed", "reason": _line(error)}
    sender.send(result)
    sender.close()
    sys.stdout.flush()
    os._exit(0)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:200]
