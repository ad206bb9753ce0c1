"""Folders of immutable arrays: the rows of a part, and numbers derived from them.

Shapes: `n` items, `m` rows of a modality, `D` dimension.
"""

import os
import re
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.errors import DataError
from unialign.index._snapshot import Derived, Part
from unialign.io import (
    digest,
    file_chunks,
    npy_chunks,
    open_regular,
    read_npy_header,
    sync_folder,
    temporary_sibling,
    write_durably,
)

PARTS = "parts"

# Name of a file -> (size in bytes, sha256).
Files = dict[str, tuple[int, str]]


def part_name(number: int) -> str:
    """Return a new name for the folder of a part."""
    return f"{number:08d}-{secrets.token_hex(4)}"


def check_part_name(name: str) -> None:
    """Raise DataError if a name in the catalog is not from `part_name`, since it could point outside the folder."""
    if not re.fullmatch(r"\d{8,}-[0-9a-f]{8}", name):
        raise DataError(f"the index has an invalid part name {name[:100]!r}; restore the index")


def write_part(folder: Path, part: Part) -> Files:
    """Write the arrays of a part to a new folder: complete on return, absent after an exception or a crash."""
    arrays: dict[str, NDArray[Any]] = {_rows_file(name): rows for name, rows in part.rows.items()}
    arrays |= {_places_file(name): places for name, places in part.places.items() if places is not None}
    return write_arrays(folder, arrays)


def read_part(folder: Path, number: int, items: int, files: Files, modalities: tuple[str, ...], dim: int) -> Part:
    """Map the arrays of a part.

    Raises:
        DataError: a file is missing, or does not have the size and shape of the catalog.
    """
    rows: dict[str, Any] = {}
    places: dict[str, Any] = {}
    for name in modalities:
        if _rows_file(name) not in files:
            continue
        rows[name] = map_array(folder, _rows_file(name), files, np.float32, (None, dim))
        places[name] = None
        if _places_file(name) in files:
            places[name] = map_array(folder, _places_file(name), files, np.int32, (len(rows[name]),))
        elif len(rows[name]) != items:
            raise _altered(folder, _rows_file(name), f"it has {len(rows[name])} rows, expected {items}")
    return Part(number, items, rows, places)


def write_derived(folder: Path, derived: Derived) -> Files:
    """Write the derived numbers of a part to a new folder."""
    arrays: dict[str, NDArray[Any]] = {"inner.npy": derived.inner}
    arrays |= {f"inverse_norm.{name}.npy": values for name, values in derived.inverse_norm.items()}
    arrays |= {f"local.{name}.npy": values for name, values in derived.local.items()}
    return write_arrays(folder, arrays)


def read_derived(folder: Path, files: Files, part: Part, modalities: int, *, has_local: bool) -> Derived:
    """Map the derived numbers of a part.

    Raises:
        DataError: a file is missing, or has another size or shape.
    """
    inverse_norm = {
        name: map_array(folder, f"inverse_norm.{name}.npy", files, np.float32, (len(rows),))
        for name, rows in part.rows.items()
    }
    local = {
        name: map_array(folder, f"local.{name}.npy", files, np.float32, (len(rows), modalities))
        for name, rows in part.rows.items()
        if has_local
    }
    pairs = modalities * (modalities - 1) // 2
    return Derived(inverse_norm, local, map_array(folder, "inner.npy", files, np.float32, (part.items, pairs)))


def write_arrays(folder: Path, arrays: Mapping[str, NDArray[Any]]) -> Files:
    """Write arrays to a new folder, sync them to disk, and rename the folder to its final name."""
    partial = temporary_sibling(folder, "partial")
    try:
        partial.mkdir(parents=True)
        files: Files = {}
        for name, array in arrays.items():
            sha256 = write_durably(partial / name, npy_chunks(array))
            files[name] = ((partial / name).stat().st_size, sha256)
        sync_folder(partial)
        os.rename(partial, folder)
        sync_folder(folder.parent)
    except OSError as error:
        raise DataError(f"cannot write {folder} ({error.strerror or error}); the index is unchanged") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return files


def map_array(
    folder: Path, name: str, files: Files, dtype: type[np.generic], shape: tuple[int | None, ...]
) -> NDArray[Any]:
    """Map an array whose size is in the catalog; its content is checked by `check_file`."""
    path = folder / name
    try:
        if folder.is_symlink() or path.is_symlink():
            raise ValueError("it is a symbolic link")
        size, _ = files[name]
        with open_regular(path) as file:
            header = read_npy_header(file)
            offset, actual = file.tell(), os.fstat(file.fileno()).st_size
            if actual != size:
                raise ValueError(f"it has {actual} bytes, expected {size}")
            if header.dtype != np.dtype(dtype) or header.order != "C" or len(header.shape) != len(shape):
                raise ValueError(f"it has dtype {header.dtype} and shape {header.shape}")
            if any(want not in (None, have) for want, have in zip(shape, header.shape, strict=True)):
                raise ValueError(f"it has shape {header.shape}")
            if offset + int(np.prod(header.shape)) * header.dtype.itemsize != size:
                raise ValueError(f"its header does not match its {size} bytes")
            if 0 in header.shape:
                return np.zeros(header.shape, dtype)
            return np.memmap(file, header.dtype, "r", offset, header.shape)
    except KeyError:
        raise _altered(folder, name, "it is not in the catalog") from None
    except (OSError, ValueError, OverflowError, DataError) as error:
        raise _altered(folder, name, str(getattr(error, "strerror", None) or error)) from None


def check_file(folder: Path, name: str, size: int, sha256: str) -> str | None:
    """Return a sentence about a file that is missing or altered, or None."""
    try:
        if folder.is_symlink() or (folder / name).is_symlink():
            return f"{folder / name} is a symbolic link"
        with open_regular(folder / name) as file:
            if os.fstat(file.fileno()).st_size != size or digest(file_chunks(file)) != sha256:
                return f"{folder / name} was altered after it was written"
    except (OSError, DataError) as error:
        return f"{folder / name} cannot be read ({getattr(error, 'strerror', None) or error})"
    return None


def _altered(folder: Path, name: str, problem: str) -> DataError:
    return DataError(
        f"{folder / name} cannot be used ({problem}); `verify` lists all damaged files, and `salvage` copies what is "
        "undamaged"
    )


def _rows_file(name: str) -> str:
    return f"z.{name}.npy"


def _places_file(name: str) -> str:
    return f"rows.{name}.npy"
