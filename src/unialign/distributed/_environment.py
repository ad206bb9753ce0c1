"""Read the process layout of a job from the environment variables of torchrun or SLURM."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from unialign.errors import ConfigError

_TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_SLURM = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")


@dataclass(frozen=True)
class ProcessInfo:
    """Rank and rendezvous of this process in its job.

    Attributes:
        rank: rank of the process, from 0.
        world_size: number of processes.
        local_rank: rank of the process on its machine, used as the index of its GPU.
        address, port: address and port of the rendezvous.
    """

    rank: int
    world_size: int
    local_rank: int
    address: str
    port: int


def read_process_info(environment: Mapping[str, str]) -> ProcessInfo | None:
    """Return None if the job has no other processes. Variables of torchrun take precedence, since SLURM counts its
    launchers.
    """
    if "RANK" in environment or "WORLD_SIZE" in environment:
        _require(environment, ("RANK", "WORLD_SIZE"), "torchrun")
        processes = _integer(environment, "WORLD_SIZE", 1)
        if processes == 1:
            return None
        _require(environment, _TORCHRUN, "torchrun")
        rank = _integer(environment, "RANK", 0, processes - 1)
        local = _integer(environment, "LOCAL_RANK", 0) if "LOCAL_RANK" in environment else 0
        port = _integer(environment, "MASTER_PORT", 1, 65535)
        return ProcessInfo(rank, processes, local, environment["MASTER_ADDR"], port)
    # A shell in an allocation (salloc, sbatch) has a number of tasks but no rank; it is a single process.
    if "SLURM_PROCID" not in environment or environment.get("SLURM_NTASKS", "") == "1":
        return None
    _require(environment, _SLURM, "SLURM (srun)")
    processes = _integer(environment, "SLURM_NTASKS", 1)
    if "SLURM_STEP_NUM_TASKS" in environment:  # A batch script runs as a step with a single task.
        processes = _integer(environment, "SLURM_STEP_NUM_TASKS", 1)
    if processes == 1:
        return None
    return ProcessInfo(
        _integer(environment, "SLURM_PROCID", 0, processes - 1),
        processes,
        _integer(environment, "SLURM_LOCALID", 0),
        environment["MASTER_ADDR"] if "MASTER_ADDR" in environment else _slurm_host(environment),
        _integer(environment, "MASTER_PORT", 1, 65535) if "MASTER_PORT" in environment else _slurm_port(environment),
    )


def first_host(hosts: str) -> str:
    """Return `node03` for `node[03-07,09],other1`."""
    # Replace each bracketed list by its first entry.
    host = re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", hosts.strip()).split(",")[0]
    if not host:
        raise ConfigError(f"SLURM's list of hosts {hosts!r} is empty; set MASTER_ADDR")
    return host


def _slurm_host(environment: Mapping[str, str]) -> str:
    hosts = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST")
    if not hosts:
        raise ConfigError("SLURM_STEP_NODELIST and SLURM_JOB_NODELIST are not set; start with srun, or set MASTER_ADDR")
    return first_host(hosts)


def _slurm_port(environment: Mapping[str, str]) -> int:
    """Derive a port from the job id: the same on all processes, and rarely that of another job."""
    if "SLURM_JOB_ID" not in environment:
        raise ConfigError("SLURM_JOB_ID is not set; start with srun, or set MASTER_PORT")
    return 15000 + _integer(environment, "SLURM_JOB_ID", 0) % 15000


def _require(environment: Mapping[str, str], variables: tuple[str, ...], launcher: str) -> None:
    missing = [name for name in variables if not environment.get(name)]
    if missing:
        given = [name for name in variables if environment.get(name)]
        raise ConfigError(
            f"the environment has {', '.join(given) or 'none'} of the variables {', '.join(variables)}, but lacks "
            f"{', '.join(missing)}; start with {launcher}, set all variables, or unset all to run one process"
        )


def _integer(environment: Mapping[str, str], name: str, low: int, high: int | None = None) -> int:
    text = environment[name]
    if not re.fullmatch(r"[0-9]{1,18}", text.strip()) or int(text) < low or (high is not None and int(text) > high):
        wanted = f"an integer of at least {low}" if high is None else f"an integer from {low} to {high}"
        raise ConfigError(f"the environment variable {name} must be {wanted}, got {text!r}")
    return int(text)
