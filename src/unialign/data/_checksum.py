"""Bytes that arrays and JSON values become, and their sha256: the same in memory and on disk."""

import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

__all__ = ["canonical_json", "file_pieces", "npy_pieces", "sha256_of"]

CHUNK_BYTES = 1 << 22


def sha256_of(pieces: Iterable[bytes]) -> str:
    """Return the hexadecimal sha256 of the joined pieces."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def canonical_json(value: Any) -> bytes:
    """Return one spelling of a JSON value: sorted keys, no blanks, ASCII. TypeError or ValueError for what is none."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


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
