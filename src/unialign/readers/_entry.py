"""`Reader`, the interface of a file format, and what it returns: the arrays of a file, known by their headers."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from unialign.errors import DataError, ShapeError
from unialign.readers._rows import ArrayRows, FileRegion, RegionRows, Rows

__all__ = ["ArrayEntry", "EmbeddingFile", "Reader"]


@dataclass(frozen=True)
class ArrayEntry:
    """One array of a file.

    Attributes:
        key: its name in the file; "" where the file has no names.
        shape, dtype: as stored; dtype is NumPy's text, "bfloat16", or "object" for pickled objects.
        rows: opens an (N, D) array to be read in chunks.
        load: reads it whole, or maps it into memory.
        skipped: why it cannot be used; "" where it can. It is an error only if the entry is chosen.
        is_default: whether it is used where no modalities are chosen.
    """

    key: str
    shape: tuple[int, ...]
    dtype: str
    rows: Callable[[], Rows]
    load: Callable[[], NDArray[Any]]
    skipped: str = ""
    is_default: bool = True

    @classmethod
    def from_array(cls, key: str, value: Any, *, is_default: bool = True) -> "ArrayEntry":
        """An array or tensor in memory. ShapeError if it cannot become an array of plain values."""
        if hasattr(value, "detach") and hasattr(value, "cpu"):
            value = value.detach().cpu()
            value = value.float().numpy() if str(value.dtype) == "torch.bfloat16" else value.numpy()
        array = np.asarray(value)
        if array.dtype.hasobject:
            raise ShapeError(f"{key!r} is {type(value).__name__} of objects; expected an array of floats")
        return cls(key, array.shape, str(array.dtype), lambda: ArrayRows(array), lambda: array, "", is_default)

    @classmethod
    def from_region(cls, key: str, region: FileRegion, *, is_default: bool = True) -> "ArrayEntry":
        """An uncompressed array inside a file."""
        # Per-item values are small; a matrix may exceed the memory.
        load = region.load if len(region.shape) < 2 else region.map
        return cls(key, region.shape, region.dtype, lambda: RegionRows(region), load, "", is_default)

    @classmethod
    def ignored(cls, key: str, why: str) -> "ArrayEntry":
        """An entry that is not an array of embeddings or per-item values."""
        return cls(key, (), "", _unreadable, _unreadable, why)

    @classmethod
    def pickled(cls, key: str, where: str) -> "ArrayEntry":
        """An array of Python objects, which is never read."""
        why = f"{where} holds pickled objects, which can run code and are never read"
        return cls(key, (), "object", _unreadable, _unreadable, why)

    @property
    def is_floating(self) -> bool:
        return self.dtype == "bfloat16" or self.kind == "f"

    @property
    def kind(self) -> str:
        """NumPy's letter of the kind of dtype: "f", "i", "b", "U", ...; "" for what NumPy cannot hold."""
        return "" if self.dtype in ("", "object", "bfloat16") else np.dtype(self.dtype).kind


@dataclass(frozen=True)
class EmbeddingFile:
    """One source: a file, a store, or arrays in memory.

    Attributes:
        label: how messages name it.
        kind: name of its reader, or "memory".
        stem: the name of a modality that has no better one.
        entries: key -> array.
    """

    label: str
    kind: str
    stem: str
    entries: Mapping[str, ArrayEntry]

    @classmethod
    def at(cls, path: Path, kind: str, entries: Iterable[ArrayEntry]) -> "EmbeddingFile":
        """The file at a path, with its name up to the first dot as the stem."""
        return cls(str(path), kind, path.name.split(".")[0] or path.name, {entry.key: entry for entry in entries})


@runtime_checkable
class Reader(Protocol):
    """A file format. Register a class or an instance as entry point `unialign.readers`, or with `registry.register`.

    Examples:
        >>> class CsvReader:
        ...     name, suffixes = "csv", (".csv",)
        ...     def can_read(self, path, head):
        ...         return path.suffix == ".csv"
        ...     def open(self, path):
        ...         return EmbeddingFile.at(path, "csv", [ArrayEntry.from_array("", np.loadtxt(path, delimiter=","))])

    Attributes:
        name: unique name.
        suffixes: usual ends of file names, for messages; the content decides.
    """

    name: str
    suffixes: tuple[str, ...]

    def can_read(self, path: Path, head: bytes) -> bool:
        """Whether a file is of this format, by its first 16 bytes (empty for a folder)."""

    def open(self, path: Path) -> EmbeddingFile:
        """List the arrays from headers alone; DataError that names the file where it is damaged."""


def _unreadable() -> Any:
    raise DataError("this array cannot be read")
