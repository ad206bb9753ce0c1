"""Replace single files atomically, sync them to disk, and open only regular files."""

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from unialign.errors import DataError, UniAlignError

_LEFTOVER = re.compile(r"\..+\.[0-9a-f]{12}\.(partial|old)")


def checked_path(path: object, what: str, *, error: type[UniAlignError]) -> Path:
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise error(f"{what} must be a path as a string or pathlib.Path, got {path!r}")
    if not os.fspath(path):
        raise error(f"{what} must be a path, got an empty string; write . for the current folder")
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as reason:
        raise error(f"{what} {_shortened(path)} cannot be used ({reason.strerror}); choose another path") from None
    except ValueError as reason:  # null character or unpaired surrogate
        raise error(f"{what} {_shortened(path)} is not a valid path ({reason}); choose another path") from None
    return Path(path)


def reject_links_out(file: Path, folder: Path, *, error: type[UniAlignError]) -> None:
    """Raise an error for links out of the folder, except into the blobs of a Hugging Face Hub cache
    (`snapshots/NAME/file` -> `blobs/HASH`).
    """
    try:
        root, target = folder.resolve(strict=True), file.resolve(strict=True)
    except (OSError, RuntimeError) as reason:  # RuntimeError: a symlink loop
        text = reason.strerror if isinstance(reason, OSError) else reason
        raise error(f"{file} cannot be read ({text}); restore the file") from None
    cache = next((parent.parent / "blobs" for parent in root.parents if parent.name == "snapshots"), None)
    if not target.is_relative_to(root) and target.parent != cache:
        raise error(f"{file} is a link out of the folder and is not followed; copy the file into it")


def replace_file(path: Path, content: bytes | str, *, error: type[UniAlignError] = DataError, advice: str = "") -> None:
    """Replace a file atomically: readers see either the old or the new content. `advice` is the end of the error
    message.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    if not path.name:
        raise error(f"{path} is a folder; pass the path of a file")
    partial = temporary_sibling(path, "partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_durably(partial, data)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as reason:
        message = f"cannot write {path}: {reason.strerror or reason}; the previous file is unchanged"
        raise error(f"{message}. {advice}" if advice else message) from reason
    # The new file is in place. If the folder cannot be synced, a power loss may restore the complete old file.
    with contextlib.suppress(OSError):
        sync_folder(path.parent)


def temporary_sibling(path: Path, suffix: str) -> Path:
    """Return a random name next to a path, which `is_leftover` recognizes."""
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.{suffix}")


def is_leftover(path: Path) -> bool:
    return _LEFTOVER.fullmatch(path.name) is not None


def discard_leftovers(folder: Path) -> None:
    """Delete the temporary files that killed processes left; no other process may be writing in the folder."""
    for entry in filter(is_leftover, list(folder.iterdir())):
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def write_yaml(path: Path, settings: Mapping[str, Any], *, error: type[UniAlignError] = DataError) -> None:
    replace_file(path, yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True), error=error)


def write_durably(path: Path, data: bytes | Iterable[bytes]) -> str:
    """Sync the file to disk, and return its sha256."""
    hasher = hashlib.sha256()
    # Create the file with `open`, so that the umask determines its mode.
    with path.open("xb") as file:
        for chunk in _chunks(data):
            hasher.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return hasher.hexdigest()


def sync_folder(path: Path) -> None:
    """Sync a folder to disk, since a power loss could otherwise undo a rename."""
    # Only POSIX systems can open and sync folders.
    if os.name == "posix":
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def digest(data: bytes | Iterable[bytes]) -> str:
    """Return the hexadecimal sha256."""
    hasher = hashlib.sha256()
    for chunk in _chunks(data):
        hasher.update(chunk)
    return hasher.hexdigest()


def open_regular(path: Path) -> BinaryIO:
    # Open without blocking, since opening a named pipe would wait for a writer.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
    except OSError:
        os.close(handle)
        raise
    return os.fdopen(handle, "rb")


def _chunks(data: bytes | Iterable[bytes]) -> Iterable[bytes]:
    return [data] if isinstance(data, bytes) else data


def _shortened(path: str | os.PathLike[str]) -> str:
    text = os.fspath(path)
    return repr(text if len(text) <= 200 else f"{text[:200]}...")
