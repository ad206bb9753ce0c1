"""A collective that fails says what to look for."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist

from unialign.errors import DistributedError

__all__ = ["BATCH", "MESSAGE", "first_line", "is_of_the_transport", "naming_failures"]

# What a process may be doing when it loses the others.
MESSAGE = "exchanged a message"
BATCH = "exchanged a batch"
_ADVICE = {
    BATCH: ", since every process must call the loss equally often (on one process alone, such as for an evaluation, "
    "with `group=None`)"
}
# What gloo, NCCL and the store say in a plain RuntimeError.
_TRANSPORT = re.compile(
    r"gloo\b|nccl|\b(tcpstore|sockets?|connections?|broken pipe|timed out|time-?out|econn\w+|epipe)\b", re.IGNORECASE
)


@contextmanager
def naming_failures(group: Any, doing: str = MESSAGE) -> Iterator[None]:
    """Turn the errors of a transport into `DistributedError`: a process that ended, or one that never came.

    What is no error of the transport, such as memory that does not suffice here, stays what it is.

    Args:
        doing: what this process does with the others, in the past tense.
    """
    # Before the body: a group that failed may not know any more.
    own = f"process {dist.get_rank(group)} of {dist.get_world_size(group)}"
    try:
        yield
    except RuntimeError as error:
        if not is_of_the_transport(error):
            raise
        raise DistributedError(
            f"{own} lost the others while it {doing}: another process ended, and its own error says why, or it never "
            f"came{_ADVICE.get(doing, '')}. The backend says: {first_line(error)[:200]}"
        ) from error


def is_of_the_transport(error: BaseException) -> bool:
    """Whether an error says no more than that some other process is gone, or does not answer."""
    if isinstance(error, torch.OutOfMemoryError):
        return False
    if isinstance(error, DistributedError | dist.DistError):
        return True
    # Only the plain class: those derived from it mean something of their own.
    return type(error) is RuntimeError and _TRANSPORT.search(str(error)) is not None


def first_line(error: BaseException) -> str:
    """The first line of its message, or its type where there is none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
