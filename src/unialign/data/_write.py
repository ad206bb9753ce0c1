"""A validated `Content` becomes files and their `Description`; a folder appears whole or not at all."""

import contextlib
import errno
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from unialign.data import _layout
from unialign.data._layout import DESCRIPTION_FILE, Column, Description, FileRecord
from unialign.data._validation import Content
from unialign.errors import DataError
from unialign.io import digest, exchange, npy_pieces, sync_folder, write_durably

__all__ = ["Overwrite", "keep_in_memory", "refuse_existing", "write_folder"]

Overwrite = Literal["never", "replace"]
# Each one lost means that another writer has succeeded.
_ATTEMPTS = 1000
Sink = Callable[[str, "NDArray[Any] | bytes"], FileRecord]


def keep_in_memory(content: Content) -> tuple[Description, dict[str, NDArray[Any] | bytes]]:
    """Describe the content without writing it: the same records, hence the same fingerprint, as `write_folder`."""
    files: dict[str, NDArray[Any] | bytes] = {}

    def keep(file: str, data: NDArray[Any] | bytes) -> FileRecord:
        files[file] = data
        return FileRecord(sha256=digest(_pieces(data)), bytes=sum(map(len, _pieces(data))))

    return _describe(content, keep), files


def write_folder(content: Content, path: Path, *, overwrite: Overwrite) -> Description:
    """Write to a hidden sibling, sync, then rename: until the last step `path` is untouched, a failure leaves nothing.

    Raises:
        DataError: `path` exists (or, when replacing, is no store), or the file system refuses.
    """
    refuse_existing(path, overwrite=overwrite)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(6)}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
        description = _describe(content, lambda file, data: _write_file(partial / file, data))
        _write_file(partial / DESCRIPTION_FILE, description.to_bytes())
        for folder in (*(entry for entry in partial.iterdir() if entry.is_dir()), partial):
            sync_folder(folder)
        _put_in_place(partial, path, overwrite)
        sync_folder(path.parent)
        return description
    except OSError as error:
        raise DataError(f"cannot write the store {path}: {error}; nothing was changed there") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def refuse_existing(path: Path, *, overwrite: Overwrite, name: Path | None = None) -> None:
    """Raise DataError if writing to `path` would cost the caller something that was not offered.

    Args:
        name: what a message calls it, if not by its path.
    """
    try:
        # One look: another writer may move the folder at any time.
        entries = os.listdir(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        if not path.is_symlink() and (isinstance(error, FileNotFoundError) or not path.exists()):
            return
        entries = ["no folder"]
    except OSError as error:
        raise DataError(f"cannot look into {path}: {error.strerror or error}; choose another path") from None
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
            width=array_NW.shape[1],
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


def _pieces(data: NDArray[Any] | bytes) -> Iterable[bytes]:
    return [data] if isinstance(data, bytes) else npy_pieces(data)


def _write_file(path: Path, data: NDArray[Any] | bytes) -> FileRecord:
    path.parent.mkdir(exist_ok=True)
    # One pass both writes and hashes data larger than memory.
    sha256 = write_durably(path, _pieces(data))
    return FileRecord(sha256=sha256, bytes=path.stat().st_size)


def _put_in_place(partial: Path, path: Path, overwrite: Overwrite) -> None:
    if overwrite == "never":
        # Renaming onto an empty folder works; onto anything that appeared meanwhile it fails, as it should.
        partial.rename(path)
        return
    if exchange(partial, path):
        # What is called `partial` now is what stood there, and the caller deletes it.
        try:
            refuse_existing(partial, overwrite="replace", name=path)
        except DataError:
            exchange(partial, path)
            raise
        return
    # Elsewhere it takes two renames; an old store keeps a name of its own until a new one stands.
    aside: list[Path] = []
    try:
        for _ in range(_ATTEMPTS):
            if _move_in(partial, path, aside):
                return
        raise DataError(f"cannot replace the store {path}: other writers keep replacing it; let one write at a time")
    except BaseException:
        # The newest of the old ones goes back, unless another writer's stands there by now.
        if aside and not (path / DESCRIPTION_FILE).exists():
            with contextlib.suppress(OSError):
                aside[-1].rename(path)
            aside.pop()
        raise
    finally:
        for old in aside:
            shutil.rmtree(old, ignore_errors=True)


def _move_in(partial: Path, path: Path, aside: list[Path]) -> bool:
    """Move a store at `path` aside and the new one there; False if another writer was faster."""
    aside.append(path.with_name(f".{path.name}.{secrets.token_hex(6)}.old"))
    try:
        path.rename(aside[-1])
    except FileNotFoundError:  # nothing there, or another writer has moved it
        aside.pop()
    else:
        refuse_existing(aside[-1], overwrite="replace", name=path)  # what was moved, not what was there before
    try:
        partial.rename(path)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True
