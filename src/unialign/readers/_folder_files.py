"""List the files of a folder in an order that does not depend on the file system."""

import errno
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unialign.errors import DataError
from unialign.readers._item_records import suffix_of

__all__ = ["FolderFiles", "by_suffix", "list_files"]

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
# Folders that archive programs add.
_SKIPPED = ("__MACOSX",)
_SHOWN = 5
_MAX_BYTES = 1000


@dataclass(frozen=True)
class FolderFiles:
    """Files below a folder.

    Attributes:
        paths: POSIX paths relative to the folder, in the order of their UTF-8 bytes.
        notes: messages about entries that are left out.
    """

    folder: Path
    paths: Sequence[str]
    notes: Sequence[str]


def list_files(folder: Path) -> FolderFiles:
    """List files and links to files; hidden entries are left out, and links to folders are not followed."""
    paths: list[str] = []
    links: list[str] = []
    unreadable: list[str] = []
    unnamed: list[str] = []
    pending = [""]
    while pending:
        prefix = pending.pop()
        try:
            with os.scandir(folder / prefix) as entries:
                found = list(entries)
        except OSError as error:
            # A folder without permission is a property of the data; other errors, such as EIO, are not.
            if error.errno not in (errno.EACCES, errno.EPERM) or not prefix:
                raise DataError(
                    f"{folder / prefix} cannot be listed ({error.strerror or error}); check path and file system"
                ) from None
            unreadable.append(prefix)
            continue
        for entry in found:
            path = prefix + entry.name
            if entry.name.startswith(".") or entry.name in _SKIPPED:
                continue
            if _CONTROL.search(entry.name) or len(os.fsencode(path)) > _MAX_BYTES:
                unnamed.append(path)
            elif entry.is_dir(follow_symlinks=False):
                pending.append(f"{path}/")
            elif entry.is_symlink() and _is_folder(entry):
                links.append(path)
            else:
                paths.append(path)
    notes = [
        *_note(unreadable, "folders cannot be opened (permission denied), so their files are left out"),
        *_note(unnamed, "names are not UTF-8, have control characters or are too long, so they are left out"),
        *_note(links, "links to folders are not followed"),
    ]
    return FolderFiles(folder, sorted(paths), notes)


def by_suffix(paths: Sequence[str]) -> str:
    """Describe the number of files of each suffix, such as "961 .png, 950 .txt"."""
    counts = Counter(suffix_of(path).lower() or "without suffix" for path in paths)
    found = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    rest = sum(count for _, count in found[8:])
    return ", ".join([f"{count:,} {suffix}" for suffix, count in found[:8]] + ([f"{rest:,} others"] if rest else []))


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link loop
        return False


def _note(found: Sequence[str], what: str) -> list[str]:
    if not found:
        return []
    shown = ", ".join(map(repr, sorted(found)[:_SHOWN]))
    return [f"{len(found):,} {what}: {shown}{', ...' if len(found) > _SHOWN else ''}"]
