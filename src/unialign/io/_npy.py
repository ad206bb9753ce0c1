"""Read and write .npy files in chunks; headers are parsed as literals, and nothing is unpickled."""

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

CHUNK_BYTES = 1 << 22


class NpyHeader(NamedTuple):
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order: Literal["C", "F"]


def read_npy_header(file: BinaryIO) -> NpyHeader:
    """Read the header, up to the start of the data; raise ValueError for anything but a plain array."""
    try:
        version = npy_format.read_magic(file)
        if version == (1, 0):
            shape, fortran, dtype = npy_format.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, fortran, dtype = npy_format.read_array_header_2_0(file)
        else:
            raise ValueError(f"version must be (1, 0) or (2, 0), got {version}")
        if any(isinstance(length, bool) or length < 0 for length in shape):
            raise ValueError(f"invalid shape {shape}")
    except Exception as error:  # malicious input may raise any exception in the parser
        raise ValueError(f"{type(error).__name__}: {error}") from None
    return NpyHeader(shape, dtype, "F" if fortran and len(shape) > 1 else "C")


def file_chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(CHUNK_BYTES):
        yield chunk


def npy_chunks(array: NDArray[Any]) -> Iterator[bytes]:
    """Yield the bytes of an .npy file (version 1.0, C order, little-endian), with one chunk in memory at a time."""
    little = array.dtype.newbyteorder("<")
    yield _header(little, array.shape)
    row_bytes = max(1, array[:1].nbytes)
    step = max(1, CHUNK_BYTES // row_bytes)
    for start in range(0, len(array), step):
        yield np.ascontiguousarray(array[start : start + step], dtype=little).tobytes()


class NpyAppender:
    """Write an .npy file in parts, with the same bytes as `npy_chunks`; N need not be known in advance."""

    def __init__(self, path: Path, dtype: np.dtype[Any], width: int) -> None:
        self.dtype, self.width, self.rows = dtype, width, 0
        self._little = dtype.newbyteorder("<")
        self._file = path.open("xb")
        self._file.write(_header(self._little, (0, width)))

    def append(self, rows_bW: NDArray[Any]) -> None:
        step = max(1, CHUNK_BYTES // (self.width * self.dtype.itemsize))
        for start in range(0, len(rows_bW), step):
            self._file.write(np.ascontiguousarray(rows_bW[start : start + step], dtype=self._little).data)
        self.rows += len(rows_bW)

    def close(self) -> None:
        self._file.seek(0)
        self._file.write(_header(self._little, (self.rows, self.width)))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


def _header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    header = io.BytesIO()
    npy_format.write_array_header_1_0(
        header, {"descr": npy_format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    )
    return header.getvalue()
