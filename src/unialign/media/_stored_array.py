"""Read arrays of .npy, .npz and .safetensors files row by row; nothing is unpickled or memory-mapped.

Shapes: `N` rows, `D` numbers in each row, `R` rows of a block.
"""

import json
import math
import zipfile
from typing import Any, BinaryIO, Literal, cast

import numpy as np
from numpy.typing import NDArray

from unialign._checks import one_line
from unialign.errors import MediaError
from unialign.io import read_npy_header

__all__ = ["StoredArray", "npy_array", "npz_array", "safetensors_array", "shape_of_rows"]

Array = NDArray[Any]

_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "bfloat16", "BOOL": "|b1", "I8": "|i1", "I16": "<i2",
    "I32": "<i4", "I64": "<i8", "U8": "|u1", "U16": "<u2", "U32": "<u4", "U64": "<u8",
}  # fmt: skip
# Maximum header size that the safetensors library allows.
_MAX_SAFETENSORS_HEADER = 100_000_000
# Size of the header of a member before its name, and offset of the lengths of the name and the extra field.
_LOCAL_HEADER, _LENGTHS = 30, 26
_MAX_LISTED = 5
# In Fortran order, the numbers of a row are far apart, so many rows are read at once.
_BLOCK_BYTES = 1 << 22


class StoredArray:
    """Array at an offset of a stream; `dtype` is a NumPy dtype or "bfloat16"."""

    def __init__(
        self, stream: BinaryIO, offset: int, shape: tuple[int, ...], dtype: str, order: Literal["C", "F"] = "C"
    ) -> None:
        self.shape = shape_of_rows(shape)
        self._stream, self._offset, self._order = stream, offset, order
        self._block_DR: Array | None = None
        self._block_start = 0
        self._is_bfloat16 = dtype == "bfloat16"
        self._dtype = np.dtype("<u2" if self._is_bfloat16 else dtype)
        if self._dtype.kind not in "iufb":
            raise MediaError("undecodable", f"the array has values of type {self._dtype}, expected numbers")

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self._dtype.itemsize

    @property
    def end(self) -> int:
        return self._offset + self.bytes

    @property
    def row_bytes(self) -> int:
        return self.shape[1] * self._dtype.itemsize

    def row(self, index: int) -> Array:
        rows, dim = self.shape
        if self._order == "C" or dim < 2:
            return self._read(index * dim, dim)
        if self._block_DR is None or not 0 <= index - self._block_start < self._block_DR.shape[1]:
            count = min(rows - index, max(1, _BLOCK_BYTES // max(1, self.row_bytes)))
            self._block_DR = np.stack([self._read(column * rows + index, count) for column in range(dim)])
            self._block_start = index
        return self._block_DR[:, index - self._block_start].copy()

    def vector(self) -> Array:
        if 1 not in self.shape:
            raise MediaError("wrong-shape", f"expected one vector, found an array of shape {self.shape}")
        return self._read(0, math.prod(self.shape))

    def _read(self, start: int, count: int) -> Array:
        size = count * self._dtype.itemsize
        self._stream.seek(self._offset + start * self._dtype.itemsize)
        data = self._stream.read(size)
        if len(data) < size:
            raise MediaError("truncated", "the file ends in the middle of the array")
        raw = np.frombuffer(data, self._dtype)
        return (raw.astype(np.uint32) << np.uint32(16)).view(np.float32) if self._is_bfloat16 else raw


def shape_of_rows(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the shape (N, D) of an array of shape (N,), (N, D), or with additional axes of length 1."""
    longer = [length for length in shape[1:] if length != 1]
    if not shape or len(longer) > 1:
        raise MediaError("wrong-shape", f"the array has shape {shape}, expected one vector in each row")
    return shape[0], math.prod(longer)


def npy_array(stream: BinaryIO, size: int) -> StoredArray:
    stream.seek(0)
    return _checked(_after_header(stream, 0), size)


def npz_array(stream: BinaryIO, size: int, key: str | None) -> StoredArray:
    try:
        archive = zipfile.ZipFile(stream)
        arrays = {info.filename.removesuffix(".npy"): info for info in archive.infolist() if not info.is_dir()}
        info = arrays[_only(key, arrays)]
        member = cast(BinaryIO, archive.open(info))
        array = _after_header(member, 0)
        if info.compress_type != zipfile.ZIP_STORED:
            return _checked(array, info.file_size)
        header = member.tell()
        # The name and the extra field may have different lengths in the header of the member and in the directory.
        stream.seek(info.header_offset + _LENGTHS)
        lengths = stream.read(4)
        start = info.header_offset + _LOCAL_HEADER + sum(int.from_bytes(lengths[i : i + 2], "little") for i in (0, 2))
        stream.seek(start)
        array = _after_header(stream, start)
        if stream.tell() != start + header:
            raise MediaError("undecodable", "the archive is damaged")
        return _checked(array, size)
    except MediaError:
        raise
    except Exception as error:  # malicious input may raise any exception in the parser
        raise MediaError("undecodable", f"not a readable .npz archive ({one_line(error)})") from None


def safetensors_array(stream: BinaryIO, size: int, key: str | None) -> StoredArray:
    stream.seek(0)
    length = int.from_bytes(stream.read(8), "little")
    if length > min(size - 8, _MAX_SAFETENSORS_HEADER):
        raise MediaError("truncated", f"the header declares {length:,} bytes, but the file has {size - 8:,}")
    try:
        header = json.loads(stream.read(length))
        facts = header[_only(key, [name for name in header if name != "__metadata__"])]
        dtype, shape, (start, stop) = _DTYPES[facts["dtype"]], tuple(facts["shape"]), facts["data_offsets"]
        if not all(type(value) is int and value >= 0 for value in (start, stop, *shape)):
            raise ValueError("invalid shape or offset")
        array = StoredArray(stream, 8 + length + start, shape, dtype)
        if array.bytes != stop - start:
            raise ValueError("shape and size disagree")
    except MediaError:
        raise
    except Exception as error:  # malicious input may raise any exception in the parser
        raise MediaError("undecodable", f"not a readable .safetensors file ({one_line(error)})") from None
    return _checked(array, size)


def _after_header(stream: BinaryIO, start: int) -> StoredArray:
    try:
        header = read_npy_header(stream)
    except ValueError as error:
        raise MediaError("undecodable", f"not a plain .npy array ({one_line(error)})") from None
    if header.dtype.hasobject:
        raise MediaError("undecodable", "the array holds pickled objects, which can run code and are never read")
    return StoredArray(stream, stream.tell(), header.shape, header.dtype.str, header.order)


def _checked(array: StoredArray, size: int) -> StoredArray:
    if array._offset + array.bytes > size:
        raise MediaError(
            "truncated", f"the array needs {array._offset + array.bytes:,} bytes, but the file has {size:,}"
        )
    return array


def _only(key: str | None, names: Any) -> str:
    listed = ", ".join(map(repr, list(names)[:_MAX_LISTED])) or "none"
    if key is None and len(names) != 1:
        raise MediaError("wrong-shape", f"the file has {len(names)} arrays ({listed}); specify one as `key`")
    if key is not None and key not in names:
        raise MediaError("missing-file", f"the file has no array {key!r:.80}; it has {listed}")
    return next(iter(names)) if key is None else key
