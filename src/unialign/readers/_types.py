"""What the readers of files hand on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.errors import DataError
from unialign.readers._arrays import ArrayRows, Rows

__all__ = ["Entry", "File"]


@dataclass(frozen=True)
class Entry:
    """One array of a file, known by its header.

    Attributes:
        key: its name in the file; "" where the file has no names.
        shape, dtype: as stored; dtype is NumPy's text, or "bfloat16".
        rows: opens it as rows to be read in pieces.
        load: reads it whole.
        skipped: why it is left alone; "" where it is not.
    """

    key: str
    shape: tuple[int, ...]
    dtype: str
    rows: Callable[[], Rows]
    load: Callable[[], NDArray[Any]]
    skipped: str = ""

    @classmethod
    def of_array(cls, key: str, array: NDArray[Any]) -> "Entry":
        return cls(key, array.shape, str(array.dtype), lambda: ArrayRows(array), lambda: array)

    @classmethod
    def ignored(cls, key: str, why: str) -> "Entry":
        return cls(key, (), "", _nothing, _nothing, why)

    @classmethod
    def refused(cls, key: str, why: str) -> "Entry":
        """One that is an error as soon as somebody wants it."""
        return cls(key, (), "object", _nothing, _nothing, why)

    @property
    def floating(self) -> bool:
        return self.dtype == "bfloat16" or (self.dtype not in ("", "object") and np.dtype(self.dtype).kind == "f")


@dataclass(frozen=True)
class File:
    """One source: a file, a store, or arrays in memory.

    Attributes:
        label: what messages call it.
        kind: npz, npy, safetensors, parquet, store or memory.
        stem: the name of a modality that has no better one.
        entries: key -> array.
        default: keys that are used where nobody chooses; None: all that fit.
    """

    label: str
    kind: str
    stem: str
    entries: dict[str, Entry]
    default: tuple[str, ...] | None = None


def _nothing() -> Any:
    raise DataError("this array cannot be read")
