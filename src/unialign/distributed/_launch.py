"""Join and leave a job of several processes."""

import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import Literal, get_args

import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from unialign._checks import check_choice, check_number
from unialign.distributed._environment import ProcessInfo, read_process_info
from unialign.distributed._watchdog import Watchdog, watchdog_is_running, watching
from unialign.errors import ConfigError, DistributedError

Transport = Literal["auto", "nccl", "gloo"]


@contextmanager
def init(*, backend: Transport = "auto", timeout: float = 600.0, watchdog: bool = True) -> Iterator[ProcessInfo]:
    """Join the torchrun or SLURM (`srun`) job of this process, and leave it on exit.

    Inside the context, every loss uses the batch of all processes. If a process fails or dies, the watchdog ends all
    other processes within 30 seconds, with an error that names the failed process and its host. Errors are also written
    to torchrun's error file, and torchrun prints the first error. Without a job, `init` does nothing. If
    torch.distributed is already initialized, its group is used and left open; the watchdog then requires that all
    processes call `init` and can reach process 0 at MASTER_ADDR or by its host name.

    Args:
        backend: `nccl` for CUDA tensors, `gloo` for CPU tensors; `auto` is `nccl` if CUDA is available, else `gloo`.
        timeout: seconds that a collective waits for a missing process.
        watchdog: if False, other processes detect a dead process only when their next collective times out.

    Yields:
        Rank, world size and local rank of this process. The GPU with the local rank as index becomes the current
        device.

    Raises:
        ConfigError: environment variables are missing or inconsistent, or `backend` is "nccl" without CUDA.
        DistributedError: another process failed.
    """
    check_choice("backend", backend, get_args(Transport))
    check_number("timeout", timeout, "a number of seconds from 1 to 1,000,000", lambda x: 1 <= x <= 1e6)
    check_choice("watchdog", watchdog, (True, False))
    if dist.is_available() and dist.is_initialized():
        running = _watchdog_of_running_group(timeout) if watchdog else None
        with _torchrun_error_file(), nullcontext() if running is None else watching(running):
            yield ProcessInfo(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")), "", 0)
        return
    info = read_process_info(os.environ)
    if info is None:
        yield ProcessInfo(0, 1, 0, "", 0)
        return
    chosen = _choose(backend, info)
    _join(chosen, info, timeout)
    failed = True
    try:
        guard = watching(Watchdog([info.address], timeout=timeout)) if watchdog else nullcontext()
        with _torchrun_error_file(), guard:
            yield info
        failed = False
    finally:
        # Closing an NCCL group waits for the other processes, so it would block after a failure.
        if not failed or chosen == "gloo":
            dist.destroy_process_group()


@contextmanager
def _torchrun_error_file() -> Iterator[None]:
    """Record an exception in torchrun's error file, from which torchrun prints the first error of a job."""
    try:
        yield
    except Exception as error:
        if "TORCHELASTIC_ERROR_FILE" in os.environ:
            from torch.distributed.elastic.multiprocessing.errors import get_error_handler

            get_error_handler().record_exception(error)
        raise


def _watchdog_of_running_group(timeout: float) -> Watchdog | None:
    if dist.get_world_size() == 1 or watchdog_is_running():
        return None
    try:
        addresses = (os.environ.get("MASTER_ADDR", ""), socket.gethostname())
        return Watchdog([address for address in addresses if address], timeout=timeout)
    except DistributedError as error:
        warnings.warn(
            f"the running group has no watchdog ({error}), so if one process fails, the others wait until the group's "
            f"timeout. Set MASTER_ADDR to the address of process 0 on every process",
            stacklevel=5,
        )
        return None


def _choose(backend: Transport, info: ProcessInfo) -> str:
    if not dist.is_available():
        raise ConfigError("this build of torch has no torch.distributed; run one process, or install another build")
    cuda = torch.cuda.is_available() and dist.is_nccl_available()
    if backend == "nccl" and not cuda:
        raise ConfigError("backend 'nccl' needs CUDA, which is not available; use 'gloo' or 'auto'")
    chosen = ("nccl" if cuda else "gloo") if backend == "auto" else backend
    if chosen == "nccl":
        if info.local_rank >= torch.cuda.device_count():
            raise ConfigError(
                f"process {info.rank} has local rank {info.local_rank}, but its machine has "
                f"{torch.cuda.device_count()} GPUs; start at most one process per GPU, or use the backend 'gloo'"
            )
        torch.cuda.set_device(info.local_rank)
    return chosen


def _join(backend: str, info: ProcessInfo, timeout: float) -> None:
    time_limit = timedelta(seconds=timeout)
    # The torchrun agent may already host the store; torch detects this from the environment.
    if "RANK" in os.environ:
        dist.init_process_group(backend, init_method="env://", timeout=time_limit)
        return
    store = TCPStore(info.address, info.port, info.world_size, is_master=info.rank == 0, timeout=time_limit)
    dist.init_process_group(backend, store=store, rank=info.rank, world_size=info.world_size, timeout=time_limit)
