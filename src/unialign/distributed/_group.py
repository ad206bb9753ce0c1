"""Resolve the process group that shares a batch, and detect a job that was not joined."""

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
    """Return the group whose processes share a batch; None for a single process.

    Args:
        group: `"auto"` (all processes if there are several), None (this process only) or a process group.
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
    """Return the rank and rendezvous of this process in a job that was started but not joined, or None.

    Raises:
        ConfigError: the environment is incomplete.
    """
    return None if _initialized() else read_process_info(os.environ)


def _warn_of_a_job_not_joined() -> None:
    # SLURM tasks may be independent, unlike those of torchrun. An incomplete environment is not an error here.
    if "RANK" not in os.environ or not os.environ.get("WORLD_SIZE"):
        return
    try:
        info = not_joined()
    except ConfigError:
        return
    if info is not None:
        warnings.warn(
            f"torchrun started {info.world_size} processes, but torch.distributed is not initialized: this loss uses "
            f"the rows of its own process only. Run training inside `with unialign.distributed.init():`, or pass "
            f"group=None if that is intended",
            stacklevel=2,  # a constant line, so that Python shows the warning once
        )


def _initialized() -> bool:
    return dist.is_available() and dist.is_initialized()
