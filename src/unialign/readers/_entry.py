"""Define `Reader`, the interface of file formats, and `EmbeddingFile`, which lists the arrays of a file."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from unialign.errors import DataError, ShapeError
from unialign.readers._rows import ArrayRows, FileRegion, RegionRows, Rows

__all__ = ["ArrayEntry", "EmbeddingFile", "Reader", "repeated", "unreadable", "without_single_axes"]


@dataclass(frozen=True)
class ArrayEntry:
    """An array in a file.

    Attributes:
        key: name in the file; "" if the format has no names.
        shape, dtype: as stored; dtype is a NumPy dtype string, "bfloat16", or "object" for pickled objects.
        rows: function that opens an (N, D) array for reading in chunks.
        load: function that reads or memory-maps the full array.
        skipped: reason why the array cannot be used, or ""; also the message of the error if the array is selected.
        is_default: whether the array is used if no modalities are selected.
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
        """Wrap an array or tensor in memory; raise ShapeError for an array of objects."""
        if hasattr(value, "detach") and hasattr(value, "cpu"):
            value = value.detach().cpu()
            value = value.float().numpy() if str(value.dtype) == "torch.bfloat16" else value.numpy()
        array = np.asarray(value)
        if array.dtype.hasobject and all(isinstance(text, str) for text in array.flat):
            array = array.astype(np.str_)  # strings from a data frame
        if array.dtype.hasobject:
            raise ShapeError(
                f"{key!r} must be an array of floats, such as numpy.stack(list(x)), or, for ids and labels, of "
                f"integers or strings; got {type(value).__name__} of objects"
            )
        array = array.reshape(without_single_axes(array.shape))
        return cls(key, array.shape, str(array.dtype), lambda: ArrayRows(array), lambda: array, "", is_default)

    @classmethod
    def from_region(cls, key: str, region: FileRegion, *, is_default: bool = True) -> "ArrayEntry":
        """Describe an uncompressed array inside a file."""
        region = replace(region, shape=without_single_axes(region.shape))
        # Load per-item values, which are small; map matrices, which may exceed main memory.
        load = region.load if len(region.shape) < 2 else region.map
        return cls(key, region.shape, region.dtype, lambda: RegionRows(region), load, "", is_default)

    @classmethod
    def ignored(cls, key: str, why: str) -> "ArrayEntry":
        """Describe an entry that contains neither embeddings nor per-item values."""
        return cls(key, (), "", unreadable, unreadable, why)

    @classmethod
    def pickled(cls, key: str, where: str) -> "ArrayEntry":
        """Describe an array of Python objects, which is never read."""
        why = f"{where} holds pickled objects, which can run code and are never read"
        return cls(key, (), "object", unreadable, unreadable, why)

    @property
    def is_floating(self) -> bool:
        return self.dtype == "bfloat16" or self.kind == "f"

    @property
    def kind(self) -> str:
        """NumPy kind code of the dtype: "f", "i", "b", "U", ...; "" for dtypes that NumPy does not support."""
        return "" if self.dtype in ("", "object", "bfloat16") else np.dtype(self.dtype).kind


@dataclass(frozen=True)
class EmbeddingFile:
    """Source of embeddings: a file, a store, or arrays in memory.

    Attributes:
        label: name in messages.
        kind: name of the reader, or "memory".
        stem: fallback name for a modality.
        entries: arrays by key.
        notes: messages for the user about how the file was read.
    """

    label: str
    kind: str
    stem: str
    entries: Mapping[str, ArrayEntry]
    notes: tuple[str, ...] = ()

    @classmethod
    def at(cls, path: Path, kind: str, entries: Iterable[ArrayEntry], *, notes: Iterable[str] = ()) -> "EmbeddingFile":
        """Describe the file at a path; the stem is the file name up to the first dot."""
        listed = list(entries)
        for key in repeated(entry.key for entry in listed):
            raise DataError(f"{path} holds several arrays called {key!r}; rename them")
        stem = path.name.split(".")[0] or path.name
        return cls(str(path), kind, stem, {entry.key: entry for entry in listed}, tuple(notes))


@runtime_checkable
class Reader(Protocol):
    """Interface of a file format; register readers by the entry point `unialign.readers` or `registry.register`.

    Examples:
        >>> class RawReader:
        ...     name, suffixes = "raw", (".raw",)
        ...     def can_read(self, path, head):
        ...         return path.suffix == ".raw"
        ...     def open(self, path):
        ...         z = np.fromfile(path, np.float32).reshape(-1, 512)
        ...         return EmbeddingFile.at(path, "raw", [ArrayEntry.from_array("", z)])

    Attributes:
        name: unique name of the format.
        suffixes: usual file suffixes, for messages; detection uses the content.
    """

    name: str
    suffixes: tuple[str, ...]

    def can_read(self, path: Path, head: bytes) -> bool:
        """Return whether a file has this format, given its first 16 bytes (empty for a folder)."""

    def open(self, path: Path) -> EmbeddingFile:
        """List the arrays from headers only; for a damaged file, raise a DataError with the file name."""


def without_single_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return (N, D) for (N, 1, D) and (N, D, 1, 1), which have the same order in memory."""
    if len(shape) < 3:
        return shape
    long = [length for length in shape[1:] if length != 1]
    return (shape[0], *long) if len(long) == 1 and shape[0] != 1 else shape


def repeated(names: Iterable[str]) -> list[str]:
    return [name for name, uses in Counter(names).items() if uses > 1]


def unreadable() -> Any:
    raise DataError("this array cannot be read")
