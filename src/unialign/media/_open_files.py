"""Keep array and table files open between cells."""

from types import TracebackType
from typing import Self

__all__ = ["OpenFiles"]


class OpenFiles:
    """Array and table files that stay open between calls of `load_cell`, so that each row does not open its file.

    Use it as a context manager, and with one thread. Rows in ascending order are fastest.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all files."""
        raise NotImplementedError
