"""Resolve the group of processes that share a batch, and detect a job that was not joined."""

import os
import warnings
from typing import Any

import torch.distributed as dist

from unialign.distributed._environment import ProcessInfo, read_process_info
from unialign.distributed._local_scope import in_local_scope
from unialign.errors import ConfigError

__all__ = ["not_joined", "processes_of"]

_NOT_A_MEMBER = "this process does not belong to the group; call the loss on the processes of the group only"


def processes_of(group: Any) -> Any:
    """Return the group whose processes share a batch; None for this process alone.

    Args:
        group: `"auto"` (all processes if there are several), None (this one alone) or a process group.
    """
    if group is None or (isinstance(group, str) and group == "auto" and in_local_scope()):
        return None
    if isinstance(group, str) and group == "auto" and not _initialized():
        _warn_of_a_job_not_joined()
        return None
    if isinstance(group, str):
        if group != "auto":
            raise ConfigError(f"group must be 'auto', None or a torch.distributed process group, got {group!r}")
        group = dist.group.WORLD
    if _initialized() and group == dist.GroupMember.NON_GROUP_MEMBER:
        raise ConfigError(_NOT_A_MEMBER)
    if not _initialized() or not isinstance(group, dist.ProcessGroup):
        raise ConfigError(f"group must be 'auto', None or a torch.distributed process group, got {group!r}")
    rank = dist.get_rank(group)
    if rank < 0:
        raise ConfigError(_NOT_A_MEMBER)
    return None if dist.get_world_size(group) == 1 else group


def not_joined() -> ProcessInfo | None:
    """Return this process in the job that it was started for, if torch.distributed does not run.

    Raises:
        ConfigError: the environment is incomplete.
    """
    return None if _initialized() else read_process_info(os.environ)


def _warn_of_a_job_not_joined() -> None:
    # Tasks of SLURM may be independent; those of torchrun are not. An incomplete environment is not the loss's concern.
    if "RANK" not in os.environ or not os.environ.get("WORLD_SIZE"):
        return
    try:
        info = not_joined()
    except ConfigError:
        return
    if info is not None:
        warnings.warn(
            f"torchrun started {info.world_size} processes, but torch.distributed does not run: this loss uses the "
            f"rows of its own process only. Put the training into `with unialign.distributed.init():`, or pass "
            f"group=None if that is intended",
            stacklevel=2,  # always the same line, so that Python shows it once
        )


def _initialized() -> bool:
    return dist.is_available() and dist.is_initialized()
