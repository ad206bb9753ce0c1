"""Store the files of a store in a folder or in memory."""

import contextlib
import io
import mmap
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from unialign.data._layout import DESCRIPTION_FILE, FileRecord
from unialign.data._streamed_asset import StreamedAsset
from unialign.errors import DataError
from unialign.io import file_chunks, npy_chunks, open_regular, read_npy_header, reject_links_out

__all__ = ["FileContent", "FolderStorage", "MemoryStorage", "data_chunks"]

FileContent: TypeAlias = NDArray[Any] | bytes | StreamedAsset

# Descriptions are a few kilobytes in size; the limit keeps a malicious file from exhausting memory.
_MAX_DESCRIPTION_BYTES = 1 << 26
_REPAIR = "restore the file or write the store again"


class MemoryStorage:
    path: Path | None = None

    def __init__(self, files: Mapping[str, FileContent]) -> None:
        self._files = files

    def array(self, file: str, record: FileRecord, dtype: DTypeLike, shape: tuple[int, ...]) -> NDArray[Any]:
        view = np.asarray(self._files[file]).view()
        view.flags.writeable = False
        return view

    def chunks(self, file: str, record: FileRecord) -> Iterable[bytes]:
        return data_chunks(self._files[file])

    def open(self, file: str, record: FileRecord) -> BinaryIO:
        return io.BytesIO(b"".join(self.chunks(file, record)))


class FolderStorage:
    """Nothing is unpickled, and links out of the folder are not followed."""

    def __init__(self, path: Path) -> None:
        # Make the path absolute, since the working directory may change before an array is opened.
        self.path = Path(os.path.abspath(path))

    def description(self) -> bytes:
        if not self.path.is_dir():
            raise DataError(f"{self.path} is not a store, since the folder does not exist; {self._advice()}")
        with self.open(DESCRIPTION_FILE) as file:
            text = file.read(_MAX_DESCRIPTION_BYTES + 1)
        if len(text) > _MAX_DESCRIPTION_BYTES:
            raise DataError(
                f"{self.path / DESCRIPTION_FILE} has more than {_MAX_DESCRIPTION_BYTES} bytes, so it is not a "
                f"store description"
            )
        return text

    def array(self, file: str, record: FileRecord, dtype: DTypeLike, shape: tuple[int, ...]) -> NDArray[Any]:
        path, dtype = self.path / file, np.dtype(dtype)
        with self.open(file, record) as handle:
            try:
                header = read_npy_header(handle)
            except ValueError as error:
                raise DataError(f"{path} is not a plain .npy array ({error}); {_REPAIR}") from None
            if header.dtype.hasobject:
                raise DataError(f"{path} holds pickled objects, which are never read; write the store again")
            start = handle.tell()
            needed = start + dtype.itemsize * int(np.prod(shape, dtype=object))
            if header != (shape, dtype, "C") or needed != record.bytes:
                raise DataError(
                    f"{path} has shape {header.shape}, dtype {header.dtype} and {header.order} order, but "
                    f"{DESCRIPTION_FILE} describes shape {shape}, dtype {dtype} and {record.bytes} bytes; {_REPAIR}"
                )
            mapping = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
        return np.frombuffer(mapping, dtype=dtype, offset=start).reshape(shape)

    def chunks(self, file: str, record: FileRecord) -> Iterable[bytes]:
        with self.open(file, record) as handle:
            yield from file_chunks(handle)

    def _advice(self) -> str:
        # A process that was killed between the two renames of a replacement leaves a `.old` folder.
        with contextlib.suppress(OSError):
            for name in sorted(os.listdir(self.path.parent)):
                if name.startswith(f".{self.path.name}.") and name.endswith(".old"):
                    return f"its replacement was interrupted, so rename {name} back to restore the earlier store"
        return "check the path"

    def open(self, file: str, record: FileRecord | None = None) -> BinaryIO:
        path = self.path / file
        reject_links_out(path, self.path, error=DataError)
        try:
            handle = open_regular(path)
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror or error}); {_REPAIR}") from None
        size = os.fstat(handle.fileno()).st_size
        if record is not None and size != record.bytes:
            handle.close()
            raise DataError(
                f"{path} has {size} bytes, but {DESCRIPTION_FILE} describes {record.bytes} bytes; {_REPAIR}"
            )
        return handle


def data_chunks(data: FileContent) -> Iterable[bytes]:
    if isinstance(data, StreamedAsset):
        return data.chunks()
    return [data] if isinstance(data, bytes) else npy_chunks(data)
