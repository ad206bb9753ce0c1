"""Reserved keys of a file, and `CollectedFile`, a file with its place in a collection."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.readers._entry import ArrayEntry, EmbeddingFile

__all__ = [
    "ITEM_KEYS",
    "MASK_PREFIXES",
    "CollectedFile",
    "contents",
    "is_item_key",
    "mask_prefix",
    "named_by_key",
]

MASK_PREFIXES = ("present.", "present/")
# Per-item values, with their allowed dtype kinds.
ITEM_KEYS = {"ids": "iuUS", "labels": "iuUS", "groups": "iuUS", "split": "iuUS", "names": "US"}
_SHOWN = 6


@dataclass(eq=False)
class CollectedFile:
    """One of the files of a collection.

    Attributes:
        given: name given to its single matrix, or None.
        order_N: file row of each item if the file is reordered by ids, else None.
    """

    given: str | None
    file: EmbeddingFile
    order_N: NDArray[np.int64] | None = None

    def load(self, entry: ArrayEntry) -> NDArray[Any]:
        """Read an array in item order."""
        return entry.load() if self.order_N is None else entry.load()[self.order_N]

    def place(self, entry: ArrayEntry) -> str:
        """Return file and key of an entry for messages."""
        return f"{self.file.label}: {entry.key}" if entry.key else self.file.label


def is_item_key(key: str, entry: ArrayEntry) -> bool:
    """Return whether an entry holds per-item values; `groups`, `split` and `names` may also name a matrix."""
    return key in ("ids", "labels") or (
        key in ITEM_KEYS and len(entry.shape) == 1 and entry.kind != "" and entry.kind in ITEM_KEYS[key]
    )


def named_by_key(given: str | None, file: EmbeddingFile) -> CollectedFile:
    """Use a reserved name of a file with a single array (NAME=FILE, or ids.npy) as the key of that array."""
    if len(file.entries) != 1:
        return CollectedFile(given, file)
    (entry,) = file.entries.values()
    name = given or (Path(file.label).stem if entry.key == "" else "")
    if name not in ITEM_KEYS and mask_prefix(name) is None:
        return CollectedFile(given, file)
    return CollectedFile(None, replace(file, entries={name: replace(entry, key=name)}))


def mask_prefix(key: str) -> str | None:
    """Return the prefix that marks a key as a presence mask, or None."""
    return next((prefix for prefix in MASK_PREFIXES if key.startswith(prefix)), None)


def contents(file: EmbeddingFile) -> str:
    """Return the first entries of a file with shapes and dtypes, for messages."""
    entries = [f"{e.key or 'one array'} {e.shape} {e.dtype or e.skipped}" for e in file.entries.values()]
    if len(entries) > _SHOWN:
        entries = [*entries[:_SHOWN], f"{len(entries) - _SHOWN} more"]
    return ", ".join(entries) or "nothing"
