"""Write a validated `Content` as a store folder, or describe it in memory."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from unialign.data import _layout
from unialign.data._layout import DESCRIPTION_FILE, Column, Description, FileRecord
from unialign.data._validation import Content
from unialign.errors import DataError
from unialign.io import atomic_directory, npy_chunks, write_durably

__all__ = ["Overwrite", "check_target", "keep_in_memory", "write_folder"]

Overwrite = Literal["never", "replace"]
Sink = Callable[[str, "NDArray[Any] | bytes"], FileRecord]


def keep_in_memory(content: Content) -> tuple[Description, dict[str, NDArray[Any] | bytes]]:
    """Describe the content without writing it, with the records and fingerprint of `write_folder`."""
    files: dict[str, NDArray[Any] | bytes] = {}

    def keep(file: str, data: NDArray[Any] | bytes) -> FileRecord:
        files[file] = data
        size, hasher = 0, hashlib.sha256()
        for chunk in _chunks(data):
            size += len(chunk)
            hasher.update(chunk)
        return FileRecord(sha256=hasher.hexdigest(), bytes=size)

    return _describe(content, keep), files


def write_folder(content: Content, path: Path, *, overwrite: Overwrite) -> Description:
    """Write a store folder atomically; a failure leaves `path` unchanged.

    Raises:
        DataError: `path` exists (when replacing: is not a store), or a file system error.
    """
    check_target(path, overwrite=overwrite)

    def check_replaced(previous: Path) -> None:
        check_target(previous, overwrite="replace", name=path)

    try:
        with atomic_directory(path, check_replaced=check_replaced if overwrite == "replace" else None) as partial:
            description = _describe(content, lambda file, data: _write_file(partial / file, data))
            _write_file(partial / DESCRIPTION_FILE, description.to_bytes())
    except OSError as error:
        raise DataError(f"cannot write the store {path}: {error}; nothing was changed there") from error
    return description


def check_target(path: Path, *, overwrite: Overwrite, name: Path | None = None) -> None:
    """Raise DataError unless `path` is free, or may be replaced.

    Args:
        name: path shown in messages, if different.
    """
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


def _describe(content: Content, sink: Sink) -> Description:
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


def _chunks(data: NDArray[Any] | bytes) -> Iterable[bytes]:
    return [data] if isinstance(data, bytes) else npy_chunks(data)


def _write_file(path: Path, data: NDArray[Any] | bytes) -> FileRecord:
    path.parent.mkdir(exist_ok=True)
    # Write and hash in one pass, since data may exceed memory.
    sha256 = write_durably(path, _chunks(data))
    return FileRecord(sha256=sha256, bytes=path.stat().st_size)
