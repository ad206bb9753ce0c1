"""Read .npy files: one array without a name."""

import os
from pathlib import Path

from unialign.errors import DataError
from unialign.io import open_regular
from unialign.readers._entry import EmbeddingFile, Entry
from unialign.readers._npy_array import check_size, npy_header
from unialign.readers._rows import FileRegion

__all__ = ["NpyReader"]


class NpyReader:
    """NumPy arrays, in any memory order and precision."""

    name = "npy"
    suffixes = (".npy",)

    def can_read(self, path: Path, head: bytes) -> bool:
        return head.startswith(b"\x93NUMPY")

    def open(self, path: Path) -> EmbeddingFile:
        with open_regular(path) as file:
            header = npy_header(file, str(path))
            start, size = file.tell(), os.fstat(file.fileno()).st_size
        if header.dtype.hasobject:
            raise DataError(f"{path} holds pickled objects, which can run code and are never read; save a plain array")
        region = FileRegion(path, start, header.shape, header.dtype.str, header.order)
        return EmbeddingFile.at(path, self.name, [Entry.from_region("", check_size(region, size, str(path)))])
