"""Read and write the .npy format in chunks; a header is parsed as literals and nothing is unpickled."""

import io
from collections.abc import Iterator
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

CHUNK_BYTES = 1 << 22


class NpyHeader(NamedTuple):
    """Shape, dtype and memory order ("C" or "F") of a stored array."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order: Literal["C", "F"]


def read_npy_header(file: BinaryIO) -> NpyHeader:
    """Read the header at the current position and stop at the start of the data.

    Raises:
        ValueError: the header is damaged, or is not the header of a plain array.
    """
    try:
        version = npy_format.read_magic(file)
        if version == (1, 0):
            shape, fortran, dtype = npy_format.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, fortran, dtype = npy_format.read_array_header_2_0(file)
        else:
            raise ValueError(f"version {version}, expected (1, 0) or (2, 0)")
        if any(isinstance(length, bool) or length < 0 for length in shape):
            raise ValueError(f"its shape is {shape}")
    except Exception as error:  # malicious input may raise any exception in the parser
        raise ValueError(f"{type(error).__name__}: {error}") from None
    return NpyHeader(shape, dtype, "F" if fortran and len(shape) > 1 else "C")


def file_chunks(file: BinaryIO) -> Iterator[bytes]:
    """Yield the rest of an open file in chunks of at most `CHUNK_BYTES`."""
    while chunk := file.read(CHUNK_BYTES):
        yield chunk


def npy_chunks(array: NDArray[Any]) -> Iterator[bytes]:
    """Yield the .npy file (version 1.0, C order, little-endian) of an (N,) or (N, W) array of any memory layout.

    Chunks are processed one by one, so memory maps may exceed main memory.
    """
    little = array.dtype.newbyteorder("<")
    header = io.BytesIO()
    npy_format.write_array_header_1_0(
        header, {"descr": npy_format.dtype_to_descr(little), "fortran_order": False, "shape": array.shape}
    )
    yield header.getvalue()
    row_bytes = max(1, array[:1].nbytes)
    step = max(1, CHUNK_BYTES // row_bytes)
    for start in range(0, len(array), step):
        yield np.ascontiguousarray(array[start : start + step], dtype=little).tobytes()
