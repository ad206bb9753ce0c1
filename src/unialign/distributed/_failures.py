"""Turn failures of collectives into errors that name the likely cause."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist

from unialign.errors import DistributedError

# Predicates that describe the activity of a process when its connection is lost.
MESSAGE = "exchanged a message"
BATCH = "exchanged a batch"
_ADVICE = {
    BATCH: " (every process must call the loss the same number of times; to call it on a single process, for example "
    "in an evaluation, pass `group=None`)"
}
# Pattern for the messages of the plain RuntimeErrors that gloo, NCCL and the store raise.
_TRANSPORT = re.compile(
    r"gloo\b|nccl|\b(tcpstore|sockets?|connections?|broken pipe|timed out|time-?out|econn\w+|epipe)\b", re.IGNORECASE
)


@contextmanager
def naming_failures(group: Any, doing: str = MESSAGE) -> Iterator[None]:
    """Convert connection errors to `DistributedError`. `doing` is the predicate of the message, such as `exchanged a
    batch`.
    """
    # Query the group before the block runs, since a failed group may not respond.
    own = f"process {dist.get_rank(group)} of {dist.get_world_size(group)}"
    try:
        yield
    except RuntimeError as error:
        if not is_of_the_transport(error):
            raise
        raise DistributedError(
            f"{own} lost connection while it {doing}: another process ended (see its error) or did not join the "
            f"collective{_ADVICE.get(doing, '')}. Error of the backend: {first_line(error)[:200]}"
        ) from error


def is_of_the_transport(error: BaseException) -> bool:
    """Return whether an error only shows that another process has ended or does not respond."""
    if isinstance(error, torch.OutOfMemoryError):
        return False
    if isinstance(error, DistributedError | dist.DistError):
        return True
    # Match only RuntimeError itself, since its subclasses have other causes.
    return type(error) is RuntimeError and _TRANSPORT.search(str(error)) is not None


def first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
