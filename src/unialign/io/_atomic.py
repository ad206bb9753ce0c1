"""Write folders atomically: complete or absent, and never a mixture of two versions.

`atomic_directory` is for a folder whose whole content belongs to the writer (stores, checkpoints): it is replaced in
one rename. `commit_files` is for a folder that may also hold files of the user (a saved model beside notes, a results
folder): it replaces single files in a fixed order, so that a reader can tell a half-committed state.
"""

import contextlib
import ctypes
import errno
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from unialign.io._files import sync_folder

__all__ = ["atomic_directory", "commit_files", "exchange"]

# Linux arguments of `renameat2`: relative to the working directory; exchange.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
# Each lost attempt means that another writer has succeeded.
_ATTEMPTS = 1000


@contextlib.contextmanager
def atomic_directory(path: Path, *, check_replaced: Callable[[Path], None] | None = None) -> Iterator[Path]:
    """Fill a hidden sibling folder in the block, then rename it to `path`; an exception removes it.

    Write the files with `write_durably`, which syncs them; folders are synced here. A killed process leaves a
    `.NAME.*.partial` that may be deleted. On file systems that cannot exchange two folders, a process killed between
    the two renames of a replacement also leaves the previous folder as `.NAME.*.old`. Of several writers at once, the
    folder of the last one stays.

    Args:
        path: absent, an empty folder, or a folder to replace; missing parents are created.
        check_replaced: called with the previous folder under its present name; raises if it must stay, and then it
            does. None: only an absent or empty folder is accepted.

    Raises:
        OSError: the file system failed, or `path` holds files and `check_replaced` is None; `path` is unchanged.
    """
    partial = _sibling(path, "partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
        yield partial
        for folder, _, _ in os.walk(partial, topdown=False):
            sync_folder(Path(folder))
        if check_replaced is None:
            # Renaming onto an empty folder works; onto anything that appeared meanwhile it fails, as it should.
            partial.rename(path)
        else:
            _replace(partial, path, check_replaced)
        sync_folder(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def commit_files(staging: Path, folder: Path, *, last: Sequence[str] = ()) -> None:
    """Move every file below `staging` to the same relative path below `folder`, replacing files one by one.

    Files of other names stay. The moves reach the disk in order: first all other files, then those of `last` one after
    another. A reader that starts from the last file (a description with checksums) therefore finds the old version, the
    new one, or checksums that tell that the commit was interrupted; `staging` then holds the rest.

    Args:
        staging: a folder on the same file system; its files are already synced.
        folder: an existing folder.
        last: relative paths, in order; missing ones are skipped.

    Raises:
        OSError: the file system failed.
    """
    files = sorted(path for path in staging.rglob("*") if path.is_file())
    final = [staging / name for name in last if staging / name in files]
    touched: dict[Path, None] = {}
    for file in (file for file in files if file not in final):
        target = folder / file.relative_to(staging)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(file, target)
        touched[target.parent] = None
    for parent in touched:
        sync_folder(parent)
    for file in final:
        target = folder / file.relative_to(staging)
        os.replace(file, target)
        sync_folder(target.parent)


def exchange(one: Path, other: Path) -> bool:
    """Swap the names of two existing files or folders in one step; False, with nothing done, where that fails.

    Only Linux supports this, on most of its file systems.
    """
    if sys.platform != "linux":
        return False
    try:
        rename = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError):  # a C library without it
        return False
    status: int = rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), ctypes.c_uint(_RENAME_EXCHANGE))
    return status == 0


def _sibling(path: Path, suffix: str) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.{suffix}")


def _replace(partial: Path, path: Path, check_replaced: Callable[[Path], None]) -> None:
    if exchange(partial, path):
        # `partial` is now the name of the previous folder, and the caller deletes it.
        try:
            check_replaced(partial)
        except BaseException:
            exchange(partial, path)
            raise
        return
    for _ in range(_ATTEMPTS):
        if _replace_by_two_renames(partial, path, check_replaced):
            return
    raise OSError(errno.EBUSY, "other writers keep replacing it; let one write at a time", str(path))


def _replace_by_two_renames(partial: Path, path: Path, check_replaced: Callable[[Path], None]) -> bool:
    """Move the previous folder aside and the new one into place; False if another writer was faster."""
    aside = _sibling(path, "old")
    # Nothing there, or another writer has just moved it.
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside)
    try:
        if aside.exists():
            check_replaced(aside)
        partial.rename(path)
    except BaseException as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            # A newer folder is in place; the one aside is outdated.
            shutil.rmtree(aside, ignore_errors=True)
            return False
        with contextlib.suppress(OSError):
            aside.rename(path)
        raise
    shutil.rmtree(aside, ignore_errors=True)
    return True
