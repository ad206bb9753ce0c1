"""Read the rows of array files and the cells of tables."""

from typing import Any, BinaryIO

from numpy.typing import NDArray

from unialign.errors import MediaError
from unialign.media._hdf5_array import Hdf5Array
from unialign.media._limits import MediaLimits
from unialign.media._stored_array import StoredArray, npy_array, npz_array, safetensors_array

__all__ = ["open_array", "row_of", "whole_vector"]

_HDF5 = b"\x89HDF\r\n\x1a\n"
# MuData and MATLAB write 512 bytes of text before the signature.
_HDF5_PLACES = (0, 512)


def open_array(stream: BinaryIO, size: int, key: str | None) -> StoredArray | Hdf5Array:
    for place in _HDF5_PLACES:
        stream.seek(place)
        if stream.read(len(_HDF5)) == _HDF5:
            stream.seek(0)
            return Hdf5Array(stream, key)
    stream.seek(0)
    head = stream.read(9)
    if head.startswith(b"\x93NUMPY"):
        return npy_array(stream, size)
    if head.startswith(b"PK"):
        return npz_array(stream, size, key)
    if head[8:] == b"{":
        return safetensors_array(stream, size, key)
    raise MediaError("undecodable", "not a .npy, .npz, .safetensors or HDF5 file")


def row_of(array: StoredArray | Hdf5Array, index: int, limits: MediaLimits) -> NDArray[Any]:
    rows, dim = array.shape
    if index >= rows:
        raise MediaError("wrong-shape", f"the array has {rows} rows")
    if array.row_bytes > limits.bytes:
        raise MediaError("too-large", f"a row of {dim:,} numbers, expected at most {limits.bytes:,} bytes")
    return array.row(index)


def whole_vector(stream: BinaryIO, size: int, limits: MediaLimits) -> NDArray[Any]:
    """Return the vector of a file, which must contain a single array."""
    array = open_array(stream, size, None)
    assert isinstance(array, StoredArray)  # HDF5 raises without a key
    if array.bytes > limits.bytes:
        raise MediaError("too-large", f"an array of {array.bytes:,} bytes, expected at most {limits.bytes:,}")
    return array.vector()
