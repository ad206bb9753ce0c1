"""Read .npy files, which contain one unnamed array."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from unialign.errors import DataError
from unialign.io import NpyHeader, open_regular, read_npy_header
from unialign.readers._array_items import array_file, array_items
from unialign.readers._entry import ArrayEntry, EmbeddingFile
from unialign.readers._item_records import ItemOptions, ItemRecords
from unialign.readers._rows import FileRegion

__all__ = ["NpyReader", "npy_entry", "npy_header"]


class NpyReader:
    name = "npy"
    suffixes = (".npy",)

    def can_read(self, path: Path, head: bytes) -> bool:
        return head.startswith(b"\x93NUMPY")

    def open(self, path: Path) -> EmbeddingFile:
        with open_regular(path) as file:
            header = npy_header(file, str(path))
            if header.dtype.hasobject:
                raise DataError(
                    f"{path} holds pickled objects, which can run code and are never read; save a plain array, such as "
                    "numpy.stack(list(x)) or x.astype(str)"
                )
            return EmbeddingFile.at(path, self.name, [npy_entry("", path, file, file.tell(), header, str(path))])

    def read_items(self, paths: Sequence[Path], options: ItemOptions) -> ItemRecords:
        return array_items([array_file(path, self.open(path)) for path in paths], options)


def npy_header(file: BinaryIO, where: str) -> NpyHeader:
    """Read the header of .npy data; raise a DataError that shows `where` if the header is invalid."""
    try:
        return read_npy_header(file)
    except ValueError as error:
        raise DataError(f"{where} is not a plain .npy array ({error}); write it again") from None


def npy_entry(key: str, path: Path, file: BinaryIO, offset: int, header: NpyHeader, where: str) -> ArrayEntry:
    """Return the array at an offset of an open file; raise DataError if the array does not fit into the file."""
    region = FileRegion(path, offset, header.shape, header.dtype.str, header.order)
    size = os.fstat(file.fileno()).st_size
    if offset + region.bytes > size:
        raise DataError(
            f"{where}: shape {region.shape} and dtype {region.dtype} need {region.bytes} bytes, but the file has "
            f"{size - offset}, so it is truncated; write it again"
        )
    return ArrayEntry.from_region(key, region)
