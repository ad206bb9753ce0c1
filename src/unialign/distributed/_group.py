"""Resolve the process group that shares a batch, and detect a job whose process group was not initialized."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch.distributed as dist

from unialign.distributed._environment import ProcessInfo, read_process_info
from unialign.errors import ConfigError

_local: ContextVar[bool] = ContextVar("unialign_local", default=False)


@contextmanager
def local_scope() -> Iterator[None]:
    """Make `group="auto"` select only this process, for code that runs on one process of a job."""
    token = _local.set(True)
    try:
        yield
    finally:
        _local.reset(token)


def processes_of(group: Any) -> Any:
    """Return None for a single process."""
    is_auto = isinstance(group, str) and group == "auto"
    if group is None or (is_auto and _local.get()):
        return None
    if is_auto and not _is_initialized():
        _warn_of_a_job_not_joined()
        return None
    shared = dist.group.WORLD if is_auto else group
    if _is_initialized() and shared == dist.GroupMember.NON_GROUP_MEMBER:
        raise ConfigError("this process does not belong to the group; call the loss only on processes of the group")
    if not _is_initialized() or not isinstance(shared, dist.ProcessGroup):
        raise ConfigError(f"group must be 'auto', None or a torch.distributed process group, got {group!r}")
    return None if dist.get_world_size(shared) == 1 else shared


def not_joined() -> ProcessInfo | None:
    """Return the process of a job that was started but not joined, else None."""
    return None if _is_initialized() else read_process_info(os.environ)


def _warn_of_a_job_not_joined() -> None:
    # SLURM tasks may be independent, unlike processes of torchrun. An incomplete environment is not an error here.
    if "RANK" not in os.environ or not os.environ.get("WORLD_SIZE"):
        return
    try:
        info = not_joined()
    except ConfigError:
        return
    if info is not None:
        warnings.warn(
            f"torchrun started {info.world_size} processes, but torch.distributed is not initialized, so the loss uses "
            f"only the rows of this process. Run training inside `with unialign.distributed.init():`, or pass "
            f"group=None if this is intended",
            stacklevel=2,  # attributes the warning to a fixed line, so that Python shows it only once
        )


def _is_initialized() -> bool:
    return dist.is_available() and dist.is_initialized()
