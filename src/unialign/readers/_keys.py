"""Define the reserved keys of a file, and `CollectedFile`, a file in a collection."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.readers._entry import ArrayEntry, EmbeddingFile
from unialign.readers._rows import gathered

__all__ = [
    "ITEM_KEYS",
    "MASK_PREFIXES",
    "CollectedFile",
    "contents",
    "is_item_key",
    "is_matrix",
    "mask_prefix",
    "named_by_key",
    "plain_key",
]

MASK_PREFIXES = ("present.", "present/")
# Per-item values, with their allowed dtype kinds.
ITEM_KEYS = {"ids": "iuUS", "labels": "iuUS", "groups": "iuUS", "split": "iuUS", "names": "US"}
_SHOWN = 6
# Bool matrices with these words in their names are masks of tokens or modalities, not sign bits of embeddings.
_MASK_WORDS = ("mask", "present", "valid", "missing")


@dataclass(eq=False)
class CollectedFile:
    """File in a collection; `order_N` is the row of each item (-1 = absent) if the file is matched by ids."""

    given: str | None
    file: EmbeddingFile
    order_N: NDArray[np.int64] | None = None

    def load(self, entry: ArrayEntry) -> NDArray[Any]:
        return entry.load() if self.order_N is None else gathered(entry.load(), self.order_N)

    @property
    def folder(self) -> Path | None:
        return None if self.file.kind in ("memory", "arguments") else Path(os.path.abspath(self.file.label)).parent

    def place(self, entry: ArrayEntry) -> str:
        return f"{self.file.label}: {entry.key}" if entry.key else self.file.label


def is_item_key(key: str, entry: ArrayEntry) -> bool:
    return key in ("ids", "labels") or (
        key in ITEM_KEYS and len(entry.shape) == 1 and entry.kind != "" and entry.kind in ITEM_KEYS[key]
    )


def named_by_key(given: str | None, file: EmbeddingFile) -> CollectedFile:
    """Return a collected file; a reserved name (NAME=FILE or `ids.npy`) becomes the key of the file's single array."""
    if len(file.entries) != 1:
        return CollectedFile(given, file)
    (entry,) = file.entries.values()
    name = given or (Path(file.label).stem if entry.key == "" else "")
    if name.endswith(("_ids", ".ids")) and len(entry.shape) == 1:
        name = "ids"
    if name not in ITEM_KEYS and mask_prefix(name) is None:
        return CollectedFile(given, file)
    return CollectedFile(None, replace(file, entries={name: replace(entry, key=name)}))


def plain_key(name: str, file: EmbeddingFile) -> str:
    """Return the key of `KEY`, `'KEY'` or `FILE: KEY`."""
    text = name.strip()
    for _ in range(2):
        text = text.strip("'\"").removeprefix(f"{file.label}: ")
    return name if name in file.entries else text


def is_matrix(entry: ArrayEntry) -> bool:
    if entry.skipped or len(entry.shape) != 2 or 0 in entry.shape:
        return False
    if entry.kind == "b" and any(word in entry.key.lower() for word in _MASK_WORDS):
        return False
    return entry.is_floating or (entry.kind in ("b", "i", "u") and np.dtype(entry.dtype).itemsize == 1)


def mask_prefix(key: str) -> str | None:
    return next((prefix for prefix in MASK_PREFIXES if key.startswith(prefix)), None)


def contents(file: EmbeddingFile) -> str:
    entries = [f"{e.key or 'one array'} {e.shape} {e.dtype or e.skipped}" for e in file.entries.values()]
    if len(entries) > _SHOWN:
        entries = [*entries[:_SHOWN], f"{len(entries) - _SHOWN} more"]
    return ", ".join(entries) or "nothing"
