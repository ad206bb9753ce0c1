"""A file that is damaged, dangerous or unusual, with the code or the value that reading it must give."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unialign.media import Cell, Decoding, Kind, MediaLimits

__all__ = ["ABSENT", "Cases", "HostileCase", "nothing", "sparse"]

# The expected value of cells that are not broken, but have no content of the kind.
ABSENT = "absent"


@dataclass(frozen=True)
class HostileCase:
    """A cell, and what reading it must give.

    Attributes:
        expected: a code, `ABSENT`, a text, or an array of pixels, frames, samples or numbers.
        write: writes the files of the cell below a root folder.
        tolerance: largest difference to the expected array.
    """

    kind: Kind
    cell: Cell
    expected: Any
    write: Callable[[Path], object]
    decoding: Decoding = field(default_factory=Decoding)
    limits: MediaLimits = field(default_factory=MediaLimits)
    tolerance: float = 0.0


class Cases(dict[str, HostileCase]):
    """Cases by name."""

    def add(
        self,
        name: str,
        kind: Kind,
        expected: Any,
        data: bytes | Callable[[Path], object],
        cell: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """Add a case; `data` is the content of the file of this name, or writes it."""

        def write(root: Path) -> None:
            if callable(data):
                data(root / name)
            else:
                (root / name).write_bytes(data)

        assert name not in self
        self[name] = HostileCase(kind, Cell(**(cell or {"path": name})), expected, write, **options)


def sparse(size: int, start: bytes = b"") -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with path.open("wb") as file:
            file.write(start)
            file.truncate(size)

    return write


def nothing(path: Path) -> None:
    pass
