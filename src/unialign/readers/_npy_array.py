"""Describe .npy data inside a file, as a whole file or as a member of an archive."""

from typing import BinaryIO

from unialign.errors import DataError
from unialign.io import NpyHeader, read_npy_header
from unialign.readers._rows import FileRegion

__all__ = ["check_size", "npy_header"]


def npy_header(file: BinaryIO, where: str) -> NpyHeader:
    """Read a header; DataError that names the place where it is none."""
    try:
        return read_npy_header(file)
    except ValueError as error:
        raise DataError(f"{where} is not a plain .npy array ({error}); write it again") from None


def check_size(region: FileRegion, size: int, where: str) -> FileRegion:
    """Raise DataError unless a region ends within its file of `size` bytes."""
    if region.offset + region.bytes > size:
        raise DataError(
            f"{where}: {region.shape} of {region.dtype} need {region.bytes} bytes, the file has "
            f"{size - region.offset} for them; it was cut off, write it again"
        )
    return region
