"""Reserved keys of a file, and how messages show its entries."""

from dataclasses import replace
from pathlib import Path

from unialign.readers._entry import ArrayEntry, EmbeddingFile

__all__ = [
    "ITEM_KEYS",
    "MASK_PREFIXES",
    "contents",
    "is_item_key",
    "mask_prefix",
    "named_by_key",
    "place",
]

MASK_PREFIXES = ("present.", "present/")
# Per-item values, with their allowed dtype kinds.
ITEM_KEYS = {"ids": "iuUS", "labels": "iuUS", "groups": "iuUS", "split": "iuUS", "names": "US"}
_SHOWN = 6


def is_item_key(key: str, entry: ArrayEntry) -> bool:
    """Return whether an entry holds per-item values; `groups`, `split` and `names` may also name a matrix."""
    return key in ("ids", "labels") or (
        key in ITEM_KEYS and len(entry.shape) == 1 and entry.kind != "" and entry.kind in ITEM_KEYS[key]
    )


def named_by_key(given: str | None, file: EmbeddingFile) -> tuple[str | None, EmbeddingFile]:
    """Use a reserved name of a file with a single array (NAME=FILE, or ids.npy) as the key of that array."""
    if len(file.entries) != 1:
        return given, file
    (entry,) = file.entries.values()
    name = given or (Path(file.label).stem if entry.key == "" else "")
    if name not in ITEM_KEYS and mask_prefix(name) is None:
        return given, file
    return None, replace(file, entries={name: replace(entry, key=name)})


def mask_prefix(key: str) -> str | None:
    """Return the prefix that marks a key as a presence mask, or None."""
    return next((prefix for prefix in MASK_PREFIXES if key.startswith(prefix)), None)


def place(file: EmbeddingFile, entry: ArrayEntry) -> str:
    """Return file and key for messages."""
    return f"{file.label}: {entry.key}" if entry.key else file.label


def contents(file: EmbeddingFile) -> str:
    """Return the first entries of a file with shapes and dtypes, for messages."""
    entries = [f"{e.key or 'one array'} {e.shape} {e.dtype or e.skipped}" for e in file.entries.values()]
    if len(entries) > _SHOWN:
        entries = [*entries[:_SHOWN], f"{len(entries) - _SHOWN} more"]
    return ", ".join(entries) or "nothing"
