"""A collective that fails says what to look for."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist

from unialign.errors import ProcessError

__all__ = ["naming_failures"]


@contextmanager
def naming_failures(group: Any) -> Iterator[None]:
    """Turn the errors of a backend into `ProcessError`: a process that ended, or one that never came."""
    try:
        yield
    except RuntimeError as error:
        own = f"process {dist.get_rank(group)} of {dist.get_world_size(group)}"
        raise ProcessError(
            f"{own} lost the others while it exchanged a batch: another process ended, and its own error says why, or "
            f"it never came, since every process must call the loss equally often (on one process alone, such as for "
            f"an evaluation, with `group=None`). The backend says: {_first_line(error)[:200]}"
        ) from error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
