"""Run jobs in worker processes that write a checkpoint and exit when the parent process ends."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.reduction import ForkingPickler
from typing import Any, TypeVar

import torch

from unialign import registry
from unialign.errors import ConfigError, DataError

Job = TypeVar("Job")
Result = TypeVar("Result")
PlugIns = dict[tuple[registry.Group, str], Any]

# Number of seconds that a worker has to write a checkpoint after the parent process has ended.
GRACE = 20.0
_TERMINATED = 128 + signal.SIGTERM


def run_jobs(work: Callable[[Job], Result], jobs: Iterable[Job | None], workers: int) -> Iterator[tuple[Job, Result]]:
    """Run jobs in `workers` processes (1: the current process), and yield each job with its result when it is finished.

    If the caller is interrupted or terminated, running workers write a checkpoint and exit.

    Args:
        work: a module-level function, since workers import it.
        jobs: picklable values, since workers receive copies. A job is taken when a worker is free, so a generator may
            use the results so far; it gives None if its next job needs the result of a job that is still running.

    Raises:
        DataError: a worker process was killed. Exceptions of `work` are raised unchanged.
    """
    if workers <= 1:
        for job in jobs:
            if job is not None:
                yield job, work(job)
        return
    # Spawn the workers, since a fork of a process that has used OpenMP may hang.
    pool = ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(workers, GRACE, _plug_ins()),
    )
    source, running = iter(jobs), dict[Future[Result], Job]()
    try:
        while True:
            while len(running) < workers and (job := next(source, None)) is not None:
                with _interrupts_ignored():
                    running[pool.submit(_call, work, job)] = job
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
    except BrokenProcessPool:
        raise DataError(
            "a worker process was killed, possibly because it ran out of memory; repeat the command to continue with "
            "the unfinished runs, or use --workers 1 to reduce memory"
        ) from None
    except BaseException:
        # After an interrupt or error, SIGTERM makes running workers write a checkpoint and exit.
        for child in multiprocessing.active_children():
            child.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Ignore SIGINT: Ctrl-C is sent to the whole process group, and the parent terminates its child processes
    itself.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


# State of a worker process. SIGTERM ends an idle worker immediately and a busy worker after its checkpoint. The pool
# sends a second SIGTERM when it detects that a process ended, and this signal must not damage a checkpoint.
_busy = _ending = False


def _on_sigterm(number: int, frame: object) -> None:
    global _ending
    _ending = True
    if not _busy:
        os._exit(_TERMINATED)


def _call(work: Callable[[Job], Result], job: Job) -> Result:
    global _busy, _ending
    _busy = True
    try:
        return work(job)
    except SystemExit:
        _ending = True  # `fit` has handled the signal and written a checkpoint
        raise
    finally:
        # Reset the flag also after a failed run, since a worker marked as busy would outlive the parent process.
        _busy = False
        if _ending:
            os._exit(_TERMINATED)


def _plug_ins() -> PlugIns:
    """Return the registered objects; raise ConfigError if worker processes cannot import one of them."""
    objects = registry.registered()
    interactive = not hasattr(sys.modules["__main__"], "__file__")
    for (_, name), value in objects.items():
        try:
            if interactive and getattr(value, "__module__", "") == "__main__":
                raise TypeError("it is defined in an interactive session")
            ForkingPickler.dumps(value)
        except Exception as error:  # pickle raises several exception types
            raise ConfigError(
                f"worker processes cannot import {name!r}: {error}; define it in a module, or use one worker"
            ) from error
    return objects


def _start_worker(workers: int, grace: float, plug_ins: PlugIns) -> None:
    for (group, name), value in plug_ins.items():
        registry.register(group, name, value)
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
    signal.signal(signal.SIGTERM, _on_sigterm)
    # Without this thread, a worker would wait forever after the command is killed.
    threading.Thread(target=_end_with_parent, args=(grace,), daemon=True).start()


def _end_with_parent(grace: float) -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace)
        os._exit(_TERMINATED)
