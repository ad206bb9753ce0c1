"""Write folders atomically: complete or absent, never a mixture of two versions.

`atomic_directory` replaces a folder owned entirely by the writer (stores, checkpoints) in one rename. `commit_files`
replaces single files in a folder that may also contain user files (a saved model, a results folder), in a fixed order
that lets readers detect a partial commit.
"""

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
# Maximum number of attempts; each failed one means that another writer succeeded.
_ATTEMPTS = 1000


@contextlib.contextmanager
def atomic_directory(path: Path, *, check_replaced: Callable[[Path], None] | None = None) -> Iterator[Path]:
    """Yield a hidden sibling folder to fill, then rename it to `path`; an exception removes it.

    Write the files with `write_durably`, which syncs them; folders are synced here. If several processes write at once,
    the last one wins. A killed process leaves a folder that `discard_leftovers` deletes: the incomplete one, or, on
    file systems that cannot exchange two folders, the previous one.

    Args:
        path: absent, an empty folder, or a folder to replace; missing parents are created.
        check_replaced: called with the current path of the previous folder; raises if that folder must not be replaced.
            None if `path` must be absent or empty.

    Raises:
        OSError: a file system error, or `path` is not empty and `check_replaced` is None; `path` is unchanged.
    """
    partial = temporary_sibling(path, "partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
        yield partial
        for folder, _, _ in os.walk(partial, topdown=False):
            sync_folder(Path(folder))
        if check_replaced is None:
            # Renaming succeeds onto an empty folder, and fails onto anything that was created meanwhile.
            partial.rename(path)
        else:
            _replace(partial, path, check_replaced)
        sync_folder(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def commit_files(staging: Path, folder: Path, *, last: Sequence[str] = ()) -> None:
    """Move every file below `staging` to the same relative path below `folder`, replacing files one by one.

    Files with other names are kept. A reader that starts from the last file (a description with checksums) finds the
    old version, the new one, or a checksum mismatch after an interrupted commit; `staging` then contains the rest.

    Args:
        staging: a folder on the same file system; its files are already synced.
        folder: an existing folder.
        last: relative paths to move after all others, in order; missing ones are skipped.

    Raises:
        OSError: a file system error.
    """
    files = sorted(path.relative_to(staging) for path in staging.rglob("*") if path.is_file())
    final = [Path(name) for name in last if Path(name) in files]
    moved = [file for file in files if file not in final]
    for file in moved:
        (folder / file.parent).mkdir(parents=True, exist_ok=True)
        os.replace(staging / file, folder / file)
    for parent in dict.fromkeys(file.parent for file in moved):
        sync_folder(folder / parent)
    for file in final:
        os.replace(staging / file, folder / file)
        sync_folder((folder / file).parent)


def exchange(one: Path, other: Path) -> bool:
    """Swap two existing files or folders atomically; return False, with no changes, if that fails.

    Only Linux supports this, on most of its file systems.
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
    raise OSError(errno.EBUSY, "other processes keep replacing it; write from one process at a time", str(path))


def _replace_by_two_renames(partial: Path, path: Path, check_replaced: Callable[[Path], None]) -> bool:
    """Move the previous folder aside and the new one into place; return False if another writer interfered."""
    aside = temporary_sibling(path, "old")
    # The path is absent, or another writer has just moved it.
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside)
    try:
        if aside.exists():
            check_replaced(aside)
        partial.rename(path)
    except BaseException as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            # A newer folder is in place, so the folder moved aside is outdated.
            shutil.rmtree(aside, ignore_errors=True)
            return False
        with contextlib.suppress(OSError):
            aside.rename(path)
        raise
    shutil.rmtree(aside, ignore_errors=True)
    return True
