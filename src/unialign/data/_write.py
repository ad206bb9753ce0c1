"""Write the files of a store folder atomically."""

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from unialign.data._layout import DESCRIPTION_FILE, FileRecord
from unialign.data._storage import FileContent, data_chunks
from unialign.errors import ConfigError, DataError
from unialign.io import atomic_directory, checked_path, digest, file_chunks, write_durably

__all__ = ["Overwrite", "new_store_folder", "record_of", "record_of_file", "resolve_target", "write_file"]

Overwrite = Literal["never", "replace"]


def record_of(data: FileContent) -> FileRecord:
    size, hasher = 0, hashlib.sha256()
    for chunk in data_chunks(data):
        size += len(chunk)
        hasher.update(chunk)
    return FileRecord(sha256=hasher.hexdigest(), bytes=size)


def record_of_file(path: Path) -> FileRecord:
    with path.open("rb") as file:
        return FileRecord(sha256=digest(file_chunks(file)), bytes=path.stat().st_size)


def write_file(path: Path, chunks: Iterable[bytes]) -> FileRecord:
    path.parent.mkdir(exist_ok=True)
    # Write and hash in one pass, since data may exceed memory.
    sha256 = write_durably(path, chunks)
    return FileRecord(sha256=sha256, bytes=path.stat().st_size)


@contextlib.contextmanager
def new_store_folder(path: Path, *, overwrite: Overwrite) -> Iterator[Path]:
    """Yield a folder to fill, and rename it to `path` afterwards; a failure leaves `path` unchanged."""
    _check_target(path, overwrite=overwrite)

    def check_replaced(previous: Path) -> None:
        _check_target(previous, overwrite="replace", name=path)

    try:
        with atomic_directory(path, check_replaced=check_replaced if overwrite == "replace" else None) as partial:
            yield partial
    except OSError as error:
        raise DataError(f"cannot write the store {path}: {error}; the path is unchanged") from error


def resolve_target(path: str | os.PathLike[str], overwrite: Overwrite) -> Path:
    if overwrite not in ("never", "replace"):
        raise ConfigError(f"overwrite is {overwrite!r}, expected 'never' or 'replace'")
    target = Path(os.path.abspath(checked_path(path, "the store", error=DataError)))
    _check_target(target, overwrite=overwrite)
    return target


def _check_target(path: Path, *, overwrite: Overwrite, name: Path | None = None) -> None:
    try:
        # List once, since another writer may move the folder at any time.
        entries = os.listdir(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        if not path.is_symlink() and (isinstance(error, FileNotFoundError) or not path.exists()):
            return
        entries = ["not a folder"]
    except OSError as error:
        raise DataError(f"cannot list {path}: {error.strerror or error}; choose another path") from None
    if not entries:
        return
    if overwrite == "never":
        raise DataError(f"{path} already exists; choose another path or pass overwrite='replace'")
    if path.is_symlink() or DESCRIPTION_FILE not in entries:
        raise DataError(
            f"{name or path} exists and is not a store, so it is not replaced; choose another path, or remove it"
        )
