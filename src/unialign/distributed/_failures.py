"""Turn failures of collectives into errors that name the likely cause."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist

from unialign.errors import DistributedError

# Descriptions of the activity during which a connection is lost.
MESSAGE = "exchanged a message"
BATCH = "exchanged a batch"
_ADVICE = {
    BATCH: ", since every process must call the loss equally often (on one process alone, such as for an evaluation, "
    "with `group=None`)"
}
# Patterns of the plain RuntimeErrors raised by gloo, NCCL and the store.
_TRANSPORT = re.compile(
    r"gloo\b|nccl|\b(tcpstore|sockets?|connections?|broken pipe|timed out|time-?out|econn\w+|epipe)\b", re.IGNORECASE
)


@contextmanager
def naming_failures(group: Any, doing: str = MESSAGE) -> Iterator[None]:
    """Turn connection errors into `DistributedError`: a process ended, or one did not arrive.

    Other errors, such as out of memory on this process, propagate unchanged.

    Args:
        doing: what this process did when the connection was lost, as a verb in the past tense.
    """
    # Query the group before the body runs, since a failed group may not respond.
    own = f"process {dist.get_rank(group)} of {dist.get_world_size(group)}"
    try:
        yield
    except RuntimeError as error:
        if not is_of_the_transport(error):
            raise
        raise DistributedError(
            f"{own} lost connection while it {doing}: another process ended (see its error) or did not "
            f"arrive{_ADVICE.get(doing, '')}. Error of the backend: {first_line(error)[:200]}"
        ) from error


def is_of_the_transport(error: BaseException) -> bool:
    """Return whether an error only indicates that another process ended or does not respond."""
    if isinstance(error, torch.OutOfMemoryError):
        return False
    if isinstance(error, DistributedError | dist.DistError):
        return True
    # Match only the plain class; subclasses have other causes.
    return type(error) is RuntimeError and _TRANSPORT.search(str(error)) is not None


def first_line(error: BaseException) -> str:
    """Return the first line of the message, or the type if the message is empty."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
