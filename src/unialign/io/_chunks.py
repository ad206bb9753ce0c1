"""The bytes that arrays become, in pieces: the same in memory and on disk."""

import io
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

__all__ = ["file_pieces", "npy_pieces"]

CHUNK_BYTES = 1 << 22


def file_pieces(file: BinaryIO) -> Iterator[bytes]:
    """Read an open file to its end in pieces that stay small beside the data."""
    while piece := file.read(CHUNK_BYTES):
        yield piece


def npy_pieces(array: NDArray[Any]) -> Iterator[bytes]:
    """Yield the .npy file (version 1.0, C order, little-endian) of an (N,) or (N, width) array of any memory layout.

    A memory map larger than the main memory passes through in pieces.
    """
    little = array.dtype.newbyteorder("<")
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": np.lib.format.dtype_to_descr(little), "fortran_order": False, "shape": array.shape}
    )
    yield header.getvalue()
    row_bytes = max(1, array[:1].nbytes)
    step = max(1, CHUNK_BYTES // row_bytes)
    for start in range(0, len(array), step):
        yield np.ascontiguousarray(array[start : start + step], dtype=little).tobytes()
