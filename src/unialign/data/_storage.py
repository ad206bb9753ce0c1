"""Where the files of a store are read from: a folder, or memory. Both answer by the file names of `_layout`."""

import contextlib
import json
import mmap
import os
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from unialign.data._layout import DESCRIPTION_FILE, Description, FileRecord, check_seal
from unialign.errors import DataError
from unialign.io import digest, file_pieces, npy_pieces, open_regular

__all__ = ["FolderSource", "MemorySource", "Source"]

# A description is a few kilobytes; the bound keeps a hostile one out of memory.
_MAX_DESCRIPTION_BYTES = 1 << 26


class Source(Protocol):
    """Reads single files of a store. Every method raises DataError naming the file that does not fit its record."""

    @property
    def path(self) -> Path | None: ...

    def array(self, file: str, record: FileRecord, dtype: DTypeLike, shape: tuple[int, ...]) -> NDArray[Any]:
        """Return a read-only array of exactly this dtype and shape."""

    def content(self, file: str, record: FileRecord) -> bytes:
        """Return the bytes of a file that is not an array."""

    def verify(self, file: str, record: FileRecord) -> None:
        """Compare the checksum."""

    def verify_description(self, description: Description) -> None:
        """Check that the description itself is as it was written."""


class MemorySource:
    """Arrays and bytes that the caller holds. They are views, not copies."""

    path = None

    def __init__(self, files: dict[str, NDArray[Any] | bytes]) -> None:
        self._files = files

    def array(self, file: str, record: FileRecord, dtype: DTypeLike, shape: tuple[int, ...]) -> NDArray[Any]:
        view = np.asarray(self._files[file]).view()
        view.flags.writeable = False
        return view

    def content(self, file: str, record: FileRecord) -> bytes:
        content = self._files[file]
        return content if isinstance(content, bytes) else content.tobytes()

    def verify(self, file: str, record: FileRecord) -> None:
        content = self._files[file]
        pieces = [content] if isinstance(content, bytes) else npy_pieces(content)
        if digest(pieces) != record.sha256:
            raise DataError(f"{file} (in memory) was altered after the store was made; make the store again")

    def verify_description(self, description: Description) -> None:
        """Nothing to compare: the description never left memory."""


class FolderSource:
    """Files below one folder. Nothing is unpickled, no link out of the folder is followed."""

    def __init__(self, path: Path) -> None:
        # Absolute, because arrays are opened later, perhaps from another working directory.
        self.path = Path(os.path.abspath(path))
        # Not `Path.resolve`, which raises on a link that leads back to itself.
        self._root = Path(os.path.realpath(path))

    def description(self) -> bytes:
        """Return the text of `store.json`."""
        if not self.path.is_dir():
            raise DataError(f"{self.path} is not a store: no such folder; {self._advice()}")
        with self._open(DESCRIPTION_FILE) as file:
            text = file.read(_MAX_DESCRIPTION_BYTES + 1)
        if len(text) > _MAX_DESCRIPTION_BYTES:
            raise DataError(
                f"{self.path / DESCRIPTION_FILE} is larger than {_MAX_DESCRIPTION_BYTES} bytes; it is no description"
            )
        return text

    def _advice(self) -> str:
        # What replacing a store by two renames leaves if it is killed between them.
        with contextlib.suppress(OSError):
            for name in sorted(os.listdir(self.path.parent)):
                if name.startswith(f".{self.path.name}.") and name.endswith(".old"):
                    return f"its replacement was interrupted, and the earlier store is {name}: rename it back"
        return "check the path"

    def array(self, file: str, record: FileRecord, dtype: DTypeLike, shape: tuple[int, ...]) -> NDArray[Any]:
        with self._open(file, record) as handle:
            found_dtype, found_shape, order = self._header(file, handle)
            start = handle.tell()
            needed = start + int(np.dtype(dtype).itemsize) * int(np.prod(shape, dtype=object))
            if found_dtype != np.dtype(dtype) or found_shape != shape or order != "C" or needed != record.bytes:
                raise DataError(
                    f"{self.path / file} holds {found_shape} of {found_dtype} in {order} order, {DESCRIPTION_FILE} "
                    f"says {shape} of {np.dtype(dtype)} in {record.bytes} bytes; restore the file or write it again"
                )
            mapping = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
        return np.frombuffer(mapping, dtype=dtype, offset=start).reshape(shape)

    def content(self, file: str, record: FileRecord) -> bytes:
        with self._open(file, record) as handle:
            return handle.read()

    def verify(self, file: str, record: FileRecord) -> None:
        with self._open(file, record) as handle:
            found = digest(file_pieces(handle))
        if found != record.sha256:
            raise DataError(
                f"{self.path / file} was altered: its sha256 is {found}, {DESCRIPTION_FILE} says {record.sha256}; "
                f"restore the file or write the store again"
            )

    def verify_description(self, description: Description) -> None:
        check_seal(self.description(), self.path / DESCRIPTION_FILE)

    def _header(self, file: str, handle: BinaryIO) -> tuple[np.dtype[Any], tuple[int, ...], str]:
        try:
            # Version 1.0 is all that `write` produces; reading such a header evaluates literals, never a pickle.
            version = np.lib.format.read_magic(handle)
            if version != (1, 0):
                raise ValueError(f"version {version}, expected (1, 0)")
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(handle)
        except Exception as error:  # the header is hostile input: its parser may raise anything
            raise DataError(
                f"{self.path / file} is not a plain .npy array ({type(error).__name__}: {error}); "
                f"restore the file or write the store again"
            ) from None
        if dtype.hasobject:
            raise DataError(f"{self.path / file} holds pickled objects, which are never read; write the store again")
        return dtype, shape, "Fortran" if fortran else "C"

    def _open(self, file: str, record: FileRecord | None = None) -> BinaryIO:
        path = self.path / file
        try:
            if not path.resolve().is_relative_to(self._root):
                raise DataError(f"{path} is a link out of the store, which is refused; copy the file into the folder")
            handle = open_regular(path)
        except (OSError, RuntimeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise DataError(f"{path} cannot be read ({reason}); restore the file or write the store again") from None
        size = os.fstat(handle.fileno()).st_size
        if record is not None and size != record.bytes:
            handle.close()
            raise DataError(
                f"{path} has {size} bytes, {DESCRIPTION_FILE} says {record.bytes}; "
                f"restore the file or write the store again"
            )
        return handle


def parse_names(text: bytes, items: int, where: str) -> tuple[str, ...]:
    """Read `names.json`: a list of N strings."""
    try:
        names = json.loads(text)
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or len(names) != items or not all(isinstance(name, str) for name in names):
        raise DataError(f"{where} is not a list of {items} strings; restore the file or write the store again")
    return tuple(names)
