"""Find and open the files of cells: inside their root, regular, not empty and not too large."""

import contextlib
import errno
import io
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from unialign.errors import DataError, MediaError
from unialign.media._byte_range import ByteRange
from unialign.media._codes import TRANSIENT
from unialign.media._limits import MediaLimits

__all__ = [
    "FileMark",
    "OpenFile",
    "broken_file",
    "check_unchanged",
    "locate",
    "locate_anywhere",
    "mark_of",
    "open_file",
    "open_range",
]

_FLAGS = (
    os.O_RDONLY
    # Opening a named pipe would wait for a writer.
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_BINARY", 0)
    # Paths are resolved before they are opened, so a link here must have been created in the meantime.
    | getattr(os, "O_NOFOLLOW", 0)
)
_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
_DENIED = (errno.EACCES, errno.EPERM)


class FileMark(NamedTuple):
    """Size in bytes and modification time in nanoseconds of a file, which almost always differ if the file has
    changed.
    """

    size: int
    mtime_ns: int


class OpenFile(NamedTuple):
    handle: int
    mark: FileMark


def locate(file: str, roots: Sequence[Path], root: int, where: str) -> str:
    """Return the absolute path of a file, with all links resolved."""
    if root >= len(roots):
        raise DataError(f"{where}: the cell refers to root {root}, but there are {len(roots)} roots")
    try:
        folder = os.path.realpath(roots[root], strict=True)
    except OSError as error:
        if error.errno in TRANSIENT:
            raise
        # If the folder is not mounted, its files are not necessarily missing.
        raise DataError(f"the folder {roots[root]} cannot be read ({error.strerror}); restore or mount it") from None
    try:
        path = os.path.realpath(os.path.join(folder, file), strict=True)
    except OSError as error:
        raise broken_file(error, where) from None
    except ValueError:  # a null character
        raise MediaError("missing-file", "the path contains a null character", where) from None
    if not _is_inside(path, folder):
        raise MediaError("link-outside", f"the path leads out of the root folder, to {path}", where)
    return path


def locate_anywhere(file: str) -> str:
    """Return the absolute path of a file, with all links resolved."""
    try:
        return os.path.realpath(file, strict=True)
    except OSError as error:
        raise broken_file(error, file) from None
    except ValueError:
        raise MediaError("missing-file", "the path contains a null character", repr(file)) from None


@contextlib.contextmanager
def open_file(path: str, where: str) -> Iterator[OpenFile]:
    """Open a regular file; the path must not contain links."""
    try:
        handle = os.open(path, _FLAGS)
    except OSError as error:
        raise broken_file(error, where) from None
    except ValueError:
        raise MediaError("missing-file", "the path contains a null character", where) from None
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise MediaError("not-a-file", f"expected a regular file, found {_type_of(status.st_mode)}", where)
        yield OpenFile(handle, FileMark(status.st_size, status.st_mtime_ns))
    finally:
        os.close(handle)


@contextlib.contextmanager
def open_range(
    path: str, where: str, limits: MediaLimits, at: tuple[int, int] | None = None
) -> Iterator[tuple[BinaryIO, int]]:
    """Open a range of bytes. After a failed read or a change of the file, this error replaces the error of a
    decoder.
    """
    with open_file(path, where) as (handle, mark):
        offset, size = at or (0, mark.size)
        if offset + size > mark.size:
            raise MediaError("truncated", f"the cell ends at byte {offset + size:,} of {mark.size:,}", where)
        if not size:
            raise MediaError("empty", "the file has no content", where)
        if size > limits.bytes:
            raise MediaError("too-large", f"{size:,} bytes, expected at most {limits.bytes:,}", where)
        raw = ByteRange(handle, offset, size)
        try:
            yield io.BufferedReader(raw), size
        except Exception:
            check_unchanged(raw, handle, mark, where)
            raise
        check_unchanged(raw, handle, mark, where)


def check_unchanged(raw: ByteRange, handle: int, mark: FileMark, where: str) -> None:
    if raw.failure is not None:
        raise broken_file(raw.failure, where) from None
    if mark_of(handle) != mark:
        raise MediaError("unreadable", "the file changed while it was read", where)


def mark_of(handle_or_path: int | str) -> FileMark:
    status = os.stat(handle_or_path)
    return FileMark(status.st_size, status.st_mtime_ns)


def broken_file(error: OSError, where: str) -> Exception:
    """Return the MediaError of a failed call, or the error itself if the call may succeed later."""
    if error.errno in TRANSIENT:
        return error
    if error.errno in _MISSING:
        return MediaError("missing-file", "there is no such file", where)
    if error.errno == errno.ELOOP:
        return MediaError("link-loop", "the path is a link that points back to itself", where)
    if error.errno == errno.ENXIO:
        return MediaError("not-a-file", "expected a regular file, found a socket or device", where)
    reason = "no permission to read it" if error.errno in _DENIED else error.strerror or str(error)
    return MediaError("unreadable", reason, where)


def _is_inside(path: str, folder: str) -> bool:
    inside = path.startswith(folder if folder.endswith(os.sep) else folder + os.sep)
    # In a Hugging Face Hub cache, files are links: snapshots/REVISION/file -> blobs/HASH.
    parents = Path(folder).parents
    blobs = next((str(parent.parent / "blobs") for parent in parents if parent.name == "snapshots"), None)
    return inside or os.path.dirname(path) == blobs or path == folder


def _type_of(mode: int) -> str:
    for test, name in (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    ):
        if test(mode):
            return name
    return "a special file"
