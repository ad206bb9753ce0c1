"""Start and end of a job of several processes."""

import os
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
from unialign.distributed._rendezvous import known_addresses
from unialign.distributed._watchdog import Watchdog, being_watched, watching
from unialign.errors import ConfigError, DistributedError

__all__ = ["Transport", "init"]

Transport = Literal["auto", "nccl", "gloo"]


@contextmanager
def init(*, backend: Transport = "auto", timeout: float = 600.0) -> Iterator[ProcessInfo]:
    """Join the job that torchrun or SLURM (`srun`) started this process for, and leave it at the end.

    In the body every loss works on the batch of all processes. If a process fails or dies there, all others end within
    30 seconds with an error that names it and its host, whatever they are doing. Without a job, in a process that was
    started alone, nothing happens. If torch.distributed runs already, its group is used and left as it is. It is
    watched all the same if all its processes come here and reach process 0, at MASTER_ADDR or by the name of its host.

    Args:
        backend: `nccl` for tensors on CUDA, `gloo` for those on the CPU; `auto`: `nccl` where there is CUDA.
        timeout: seconds after which a collective gives up on a process that never comes.

    Yields:
        This process's rank, how many processes there are, and its number on its machine (its GPU is made the current
        one).

    Raises:
        ConfigError: variables of the environment are missing or contradict each other; `nccl` without CUDA.
        DistributedError: another process failed.
    """
    check_choice("backend", backend, get_args(Transport))
    check_number("timeout", timeout, "a number of seconds from 1 to 1,000,000", lambda x: 1 <= x <= 1e6)
    if dist.is_available() and dist.is_initialized():
        watch = _watch_running_group(timeout)
        with nullcontext() if watch is None else watching(watch):
            yield ProcessInfo(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")), "", 0)
        return
    place = read_process_info(os.environ)
    if place is None:
        yield ProcessInfo(0, 1, 0, "", 0)
        return
    chosen = _choose(backend, place)
    _join(chosen, place, timeout)
    failed = True
    try:
        with watching(Watchdog([place.address], timeout=timeout)):
            yield place
        failed = False
    finally:
        # NCCL waits for the others when it closes, and one of them is gone.
        if not failed or chosen == "gloo":
            dist.destroy_process_group()


def _watch_running_group(timeout: float) -> Watchdog | None:
    if dist.get_world_size() == 1 or being_watched():
        return None
    try:
        return Watchdog(known_addresses(), timeout=timeout)
    except DistributedError as error:
        # The job runs without it as well as it did before it came here.
        warnings.warn(
            f"the processes of the running group are not watched over ({error}): if one fails, the others wait until "
            f"the group's time-out. Set MASTER_ADDR to the address of process 0, on every process",
            stacklevel=5,
        )
        return None


def _choose(backend: Transport, place: ProcessInfo) -> str:
    if not dist.is_available():
        raise ConfigError("this build of torch has no torch.distributed; run one process, or install another build")
    cuda = torch.cuda.is_available() and dist.is_nccl_available()
    if backend == "nccl" and not cuda:
        raise ConfigError("backend 'nccl' needs CUDA, and there is none here; expected 'gloo' or 'auto'")
    chosen = ("nccl" if cuda else "gloo") if backend == "auto" else backend
    if chosen == "nccl":
        if place.local_rank >= torch.cuda.device_count():
            raise ConfigError(
                f"process {place.rank} is number {place.local_rank} on its machine, which shows {torch.cuda.device_count()} "
                f"GPUs; start at most one process per GPU, or use backend 'gloo'"
            )
        torch.cuda.set_device(place.local_rank)
    return chosen


def _join(backend: str, place: ProcessInfo, timeout: float) -> None:
    patience = timedelta(seconds=timeout)
    # torchrun's own agent may keep the store already: torch finds that out from the environment.
    if "RANK" in os.environ:
        dist.init_process_group(backend, init_method="env://", timeout=patience)
        return
    store = TCPStore(place.address, place.port, place.world_size, is_master=place.rank == 0, timeout=patience)
    dist.init_process_group(backend, store=store, rank=place.rank, world_size=place.world_size, timeout=patience)
