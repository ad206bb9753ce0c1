"""Write a store folder, or describe validated content in memory."""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from unialign.data import _layout
from unialign.data._layout import DESCRIPTION_FILE, Column, Description, FileRecord
from unialign.data._storage import data_chunks
from unialign.data._validation import Content
from unialign.errors import ConfigError, DataError
from unialign.io import atomic_directory, checked_path, write_durably

__all__ = ["Overwrite", "new_store_folder", "resolve_target", "store_in_memory", "write_file", "write_store"]

Overwrite = Literal["never", "replace"]
Data = NDArray[Any] | bytes


def store_in_memory(content: Content) -> tuple[Description, dict[str, Data]]:
    """Describe the content with the records and fingerprint of `write_store`, and return its files."""
    files: dict[str, Data] = {}

    def keep(file: str, data: Data) -> FileRecord:
        files[file] = data
        size, hasher = 0, hashlib.sha256()
        for chunk in data_chunks(data):
            size += len(chunk)
            hasher.update(chunk)
        return FileRecord(sha256=hasher.hexdigest(), bytes=size)

    return _describe(content, keep), files


def write_store(content: Content, path: Path, *, overwrite: Overwrite) -> Description:
    """Write a store folder atomically; errors as in `new_store_folder`."""
    with new_store_folder(path, overwrite=overwrite) as partial:

        def write(file: str, data: Data) -> FileRecord:
            # Write and hash in one pass, since data may exceed memory.
            sha256 = write_file(partial / file, data_chunks(data))
            return FileRecord(sha256=sha256, bytes=(partial / file).stat().st_size)

        description = _describe(content, write)
        write_file(partial / DESCRIPTION_FILE, [description.to_bytes()])
    return description


@contextlib.contextmanager
def new_store_folder(path: Path, *, overwrite: Overwrite) -> Iterator[Path]:
    """Yield a folder to fill, which then becomes `path`; a failure leaves `path` unchanged.

    Raises:
        DataError: `path` exists (when replacing: is not a store), or a file system error.
    """
    _check_target(path, overwrite=overwrite)

    def check_replaced(previous: Path) -> None:
        _check_target(previous, overwrite="replace", name=path)

    try:
        with atomic_directory(path, check_replaced=check_replaced if overwrite == "replace" else None) as partial:
            yield partial
    except OSError as error:
        raise DataError(f"cannot write the store {path}: {error}; nothing was changed there") from error


def write_file(path: Path, chunks: Iterable[bytes]) -> str:
    """Write a file of a new store and its parent folder, and return its sha256."""
    path.parent.mkdir(exist_ok=True)
    return write_durably(path, chunks)


def resolve_target(path: str | os.PathLike[str], overwrite: Overwrite) -> Path:
    """Return the absolute path to write to, checked before any array is read."""
    if overwrite not in ("never", "replace"):
        raise ConfigError(f"overwrite is {overwrite!r}, expected 'never' or 'replace'")
    target = Path(os.path.abspath(checked_path(path, "the store", error=DataError)))
    _check_target(target, overwrite=overwrite)
    return target


def _check_target(path: Path, *, overwrite: Overwrite, name: Path | None = None) -> None:
    """Raise DataError unless `path` is free or may be replaced; messages show `name` if given."""
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
        raise DataError(f"{path} exists already; choose another path or pass overwrite='replace'")
    if path.is_symlink() or DESCRIPTION_FILE not in entries:
        raise DataError(
            f"{name or path} exists and is not a store, so it is not replaced; choose another path, or remove it"
        )


def _describe(content: Content, sink: Callable[[str, Data], FileRecord]) -> Description:
    """Pass each file to `sink`, and collect the records that it returns."""
    columns = {}
    for name, array_NW in content.columns.items():
        mask_N = content.present.get(name)
        columns[name] = Column(
            dtype=array_NW.dtype.name,
            dim=array_NW.shape[1],
            array=sink(_layout.array_file(name), array_NW),
            present=None if mask_N is None else sink(_layout.present_file(name), mask_N),
            provenance=content.column_provenance.get(name),
        )
    names = None if content.names is None else json.dumps(content.names, indent=0).encode("ascii")
    return Description(
        name=content.name,
        items=content.items,
        columns=columns,
        default_modalities=content.default_modalities,
        rows={kind: sink(_layout.rows_file(kind), values_N) for kind, values_N in content.rows.items()},
        names=None if names is None else sink(_layout.NAMES_FILE, names),
        assets={name: sink(_layout.asset_file(name), data) for name, data in content.assets.items()},
        label_names=content.label_names,
        provenance=content.provenance,
    )
