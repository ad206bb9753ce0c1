"""Repeat a read after a failure of the machine or the file system."""

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from unialign.errors import DataError
from unialign.media._codes import TRANSIENT

__all__ = ["RETRY_SECONDS", "with_retries"]

T = TypeVar("T")

# Seconds to wait before each repetition of a read.
RETRY_SECONDS = (1.0, 4.0, 16.0)


def with_retries(read: Callable[[], T], where: str, *, waits: Sequence[float] = RETRY_SECONDS) -> T:
    """Return the result of `read`, which is repeated after an OSError with a number in `TRANSIENT`.

    Args:
        read: function that reads a cell or a file.
        where: location of the cell or file, for the error.
        waits: seconds to wait before each repetition.

    Raises:
        DataError: all attempts failed.
    """
    for wait in (*waits, None):
        try:
            return read()
        except OSError as error:
            if error.errno not in TRANSIENT:
                raise
            if wait is None:
                raise DataError(
                    f"{where} cannot be read ({error.strerror or error}), even after several attempts; the data "
                    "are not the cause: check the disk or network, and repeat the call"
                ) from error
            time.sleep(wait)
    raise AssertionError("unreachable")
