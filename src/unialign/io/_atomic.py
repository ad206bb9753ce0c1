"""Replace folders atomically, or commit single files in an order that lets readers detect a partial commit."""

import contextlib
import ctypes
import errno
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from unialign.io._files import sync_folder, temporary_sibling

# Linux constants of `renameat2`: AT_FDCWD and RENAME_EXCHANGE.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
# Maximum number of attempts; an attempt fails only if another writer succeeds.
_ATTEMPTS = 1000


@contextlib.contextmanager
def atomic_directory(path: Path, *, check_replaced: Callable[[Path], None] | None = None) -> Iterator[Path]:
    """Yield a hidden sibling folder to fill, and rename it to `path` on success or delete it on an exception.

    Callers must write the files with `write_durably`; this function syncs the folders. If several processes write at
    once, the last writer wins. A killed process leaves a hidden folder, which `discard_leftovers` deletes.
    `check_replaced` raises an error if the previous folder must not be replaced; without it, `path` must be absent or
    empty.
    """
    partial = temporary_sibling(path, "partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
        yield partial
        for folder, _, _ in os.walk(partial, topdown=False):
            sync_folder(Path(folder))
        if check_replaced is None:
            # Renaming replaces an empty folder, and fails if anything else was created in the meantime.
            partial.rename(path)
        else:
            _replace(partial, path, check_replaced)
        sync_folder(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def commit_files(staging: Path, folder: Path, *, last: Sequence[str] = ()) -> None:
    """Move every file below `staging` to the same relative path below `folder`; the files `last` are moved last, in
    order.

    Files with other names are kept. After an interrupted commit, `staging` contains the remaining files, and a reader
    that starts from the last file (a description with checksums) finds the old version, the new version, or a checksum
    mismatch.
    """
    files = sorted(path.relative_to(staging) for path in staging.rglob("*") if path.is_file())
    final = [Path(name) for name in last if Path(name) in files]
    moved = [file for file in files if file not in final]
    for file in moved:
        (folder / file.parent).mkdir(parents=True, exist_ok=True)
        os.replace(staging / file, folder / file)
    for parent in dict.fromkeys(parent for file in moved for parent in file.parents):
        sync_folder(folder / parent)
    for file in final:
        os.replace(staging / file, folder / file)
        sync_folder((folder / file).parent)


def exchange(one: Path, other: Path) -> bool:
    """Swap two folders atomically. Return False, without changes, if this fails; only Linux and most of its file
    systems support swaps.
    """
    if sys.platform != "linux":
        return False
    try:
        rename = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError):  # C library without renameat2
        return False
    status: int = rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), ctypes.c_uint(_RENAME_EXCHANGE))
    return status == 0


def _replace(partial: Path, path: Path, check_replaced: Callable[[Path], None]) -> None:
    if exchange(partial, path):
        # `partial` now contains the previous folder, which the caller deletes.
        try:
            check_replaced(partial)
        except BaseException:
            exchange(partial, path)
            raise
        return
    for _ in range(_ATTEMPTS):
        if _replace_by_two_renames(partial, path, check_replaced):
            return
    raise OSError(
        errno.EBUSY, "other processes keep replacing this folder; write from one process at a time", str(path)
    )


def _replace_by_two_renames(partial: Path, path: Path, check_replaced: Callable[[Path], None]) -> bool:
    """Return False if another writer interfered."""
    aside = temporary_sibling(path, "old")
    # The path may be absent, or another writer may have just moved it.
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside)
    try:
        if aside.exists():
            check_replaced(aside)
        partial.rename(path)
    except BaseException as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            # Another writer has created a newer folder, so the previous folder is outdated.
            shutil.rmtree(aside, ignore_errors=True)
            return False
        with contextlib.suppress(OSError):
            aside.rename(path)
        raise
    shutil.rmtree(aside, ignore_errors=True)
    return True
