"""List the files of a folder in an order that does not depend on the file system."""

import errno
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unialign._plain_text import count
from unialign.errors import DataError
from unialign.readers._item_records import suffix_of

__all__ = ["STORE_FILE", "FolderFiles", "by_suffix", "is_unsafe_name", "list_files"]

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
# Folders that archive tools add.
_SKIPPED = ("__MACOSX",)
_SHOWN = 5
# File of an `EmbeddingStore`, whose files are not media.
STORE_FILE = "store.json"
_MAX_BYTES = 1000


@dataclass(frozen=True)
class FolderFiles:
    """POSIX paths relative to a folder, in the order of their UTF-8 bytes."""

    folder: Path
    paths: Sequence[str]
    notes: Sequence[str]


def list_files(folder: Path) -> FolderFiles:
    """List the files of a folder. Hidden entries are omitted, and links to folders are not followed."""
    paths: list[str] = []
    links: list[str] = []
    unreadable: list[str] = []
    unnamed: list[str] = []
    stores: list[str] = []
    pending = [""]
    while pending:
        prefix = pending.pop()
        try:
            with os.scandir(folder / prefix) as entries:
                found = list(entries)
        except OSError as error:
            # A folder that may not be listed is skipped with a note; other errors, such as EIO, are raised.
            if error.errno not in (errno.EACCES, errno.EPERM) or not prefix:
                raise DataError(
                    f"{folder / prefix} cannot be listed ({error.strerror or error}); check path and file system"
                ) from None
            unreadable.append(prefix)
            continue
        if prefix and any(entry.name == STORE_FILE for entry in found):
            stores.append(prefix)
            continue
        for entry in found:
            path = prefix + entry.name
            if entry.name.startswith(".") or entry.name in _SKIPPED:
                continue
            if is_unsafe_name(path):
                unnamed.append(path)
            elif entry.is_dir(follow_symlinks=False):
                pending.append(f"{path}/")
            elif entry.is_symlink() and _is_folder(entry):
                links.append(path)
            else:
                paths.append(path)
    notes = [
        *_note(unreadable, "folder", "left out, since opening them is not permitted"),
        *_note(stores, "embedding store", "left out"),
        *_note(unnamed, "name", "left out, since they are not UTF-8, have control characters or are too long"),
        *_note(links, "link to a folder", "not followed", "links to folders"),
    ]
    return FolderFiles(folder, sorted(paths), notes)


def is_unsafe_name(path: str) -> bool:
    """Return whether a path cannot be the name of an item."""
    return _CONTROL.search(path) is not None or len(path.encode("utf-8", "surrogateescape")) > _MAX_BYTES


def by_suffix(paths: Sequence[str]) -> str:
    """Return a text such as "961 .png, 950 .txt"."""
    counts = Counter(suffix_of(path).lower() or "without suffix" for path in paths)
    found = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    rest = sum(count for _, count in found[8:])
    return ", ".join([f"{count:,} {suffix}" for suffix, count in found[:8]] + ([f"{rest:,} others"] if rest else []))


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link loop
        return False


def _note(found: Sequence[str], one: str, what: str, many: str = "") -> list[str]:
    if not found:
        return []
    shown = ", ".join(map(repr, sorted(found)[:_SHOWN]))
    return [f"{count(len(found), one, many)} {what}: {shown}{', ...' if len(found) > _SHOWN else ''}"]
