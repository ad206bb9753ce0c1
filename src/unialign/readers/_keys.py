"""Reserved keys of a file, and how messages name its entries."""

from unialign.readers._entry import ArrayEntry, EmbeddingFile

__all__ = ["ITEM_KEYS", "MASK_PREFIXES", "contents", "is_item_key", "mask_prefix", "place"]

MASK_PREFIXES = ("present.", "present/")
# Values of the items, and the kinds of dtype that each may have.
ITEM_KEYS = {"ids": "iuUS", "labels": "iuUS", "groups": "iuUS", "split": "iuUS", "names": "US"}
_SHOWN = 6


def is_item_key(key: str, entry: ArrayEntry) -> bool:
    """Whether an entry holds values of the items; an array called `groups`, `split` or `names` may also be a matrix."""
    return key in ("ids", "labels") or (
        key in ITEM_KEYS and len(entry.shape) == 1 and entry.kind != "" and entry.kind in ITEM_KEYS[key]
    )


def mask_prefix(key: str) -> str | None:
    """The prefix that makes a key a presence mask, or None."""
    return next((prefix for prefix in MASK_PREFIXES if key.startswith(prefix)), None)


def place(file: EmbeddingFile, entry: ArrayEntry) -> str:
    """File and key, for messages."""
    return f"{file.label}: {entry.key}" if entry.key else file.label


def contents(file: EmbeddingFile) -> str:
    """The first entries of a file with shapes and dtypes, for messages."""
    entries = [f"{e.key or 'one array'} {e.shape} {e.dtype or e.skipped}" for e in file.entries.values()]
    if len(entries) > _SHOWN:
        entries = [*entries[:_SHOWN], f"{len(entries) - _SHOWN} more"]
    return ", ".join(entries) or "nothing"
