"""Files: replaced whole or not at all, written so that a power cut keeps them, opened only if they are plain files.

What the file system refuses while replacing becomes the caller's own error; the other functions leave OSError to it.
"""

import contextlib
import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from unialign.errors import DataError, UniAlignError

__all__ = [
    "checked_path",
    "digest",
    "open_regular",
    "replace_file",
    "sync_folder",
    "write_durably",
    "write_yaml",
]


def checked_path(path: object, what: str, *, error: type[UniAlignError]) -> Path:
    """A path that the file system can be asked about; whether something stands there is the caller's question.

    Args:
        what: what a message calls it.
        error: what is raised for what is no path, or one that no file can have (a null character, too long a name).
    """
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise error(f"{what} must be a path as a string or pathlib.Path, got {path!r}")
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as refusal:
        raise error(f"{what} cannot be used, {refusal.strerror}: {_shortened(path)}; choose another path") from None
    except ValueError as refusal:  # a null character, half a surrogate pair
        raise error(f"{what} {_shortened(path)} can be no path ({refusal}); choose another one") from None
    return Path(path)


def replace_file(path: Path, content: bytes | str, *, error: type[UniAlignError] = DataError, advice: str = "") -> None:
    """Write a file, and its folder if need be: at every moment a reader sees the old content or the new, never a part.

    Args:
        content: text is written as UTF-8.
        error: what is raised when the file system refuses.
        advice: a sentence for its message.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    if not path.name:
        raise error(f"{path} is a folder; name a file in it")
    partial = path.with_name(f".{path.name}.{secrets.token_hex(6)}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_durably(partial, data)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as refusal:
        message = f"cannot write {path}: {refusal.strerror or refusal}; what was there before is untouched"
        raise error(f"{message}. {advice}" if advice else message) from refusal
    # The new file is in place; where a folder cannot be synced, a power cut brings the old one back, still whole.
    with contextlib.suppress(OSError):
        sync_folder(path.parent)


def write_yaml(path: Path, settings: Mapping[str, Any], *, error: type[UniAlignError] = DataError) -> None:
    """`replace_file` with settings as YAML, in the order given."""
    replace_file(path, yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True), error=error)


def write_durably(path: Path, data: bytes | Iterable[bytes]) -> str:
    """Write a new file, whole or in pieces, and wait until the disk has it; returns its sha256."""
    hasher = hashlib.sha256()
    # Exclusive, and made by `open`, so that its mode follows the umask.
    with path.open("xb") as file:
        for piece in _pieces(data):
            hasher.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return hasher.hexdigest()


def sync_folder(path: Path) -> None:
    """Wait until the disk has the names in a folder: a rename without it can be undone by a power cut."""
    # Only POSIX can open a folder; elsewhere the rename is all there is.
    if os.name == "posix":
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def digest(data: bytes | Iterable[bytes]) -> str:
    """Hexadecimal sha256 of bytes, or of joined pieces."""
    hasher = hashlib.sha256()
    for piece in _pieces(data):
        hasher.update(piece)
    return hasher.hexdigest()


def open_regular(path: Path) -> BinaryIO:
    """Open for reading; OSError also for what is no regular file."""
    # Not blocking: a named pipe in the place of a file would wait for ever.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
    except OSError:
        os.close(handle)
        raise
    return os.fdopen(handle, "rb")


def _pieces(data: bytes | Iterable[bytes]) -> Iterable[bytes]:
    return [data] if isinstance(data, bytes) else data


def _shortened(path: str | os.PathLike[str]) -> str:
    text = os.fspath(path)
    return repr(text if len(text) <= 200 else f"{text[:200]}...")
