"""Read the vectors of flat faiss indexes, and the ids of an enclosing IDMap, without the faiss package."""

import os
import struct
from pathlib import Path
from typing import BinaryIO

from unialign.errors import DataError
from unialign.io import open_regular
from unialign.readers._entry import ArrayEntry, EmbeddingFile
from unialign.readers._quantized import bits_entry
from unialign.readers._rows import FileRegion

__all__ = ["FaissReader"]

_FLAT, _MAPS = (b"IxFI", b"IxF2", b"IxFl"), (b"IxMp", b"IxM2", b"IBMp", b"IBM2")
_BITS = b"IBxF"
# Unsupported index types, which store compressed or reordered vectors.
_OTHERS = {
    b"IwFl": "IVF,Flat", b"IwPQ": "IVF,PQ", b"IwSq": "IVF,SQ", b"IvPQ": "IVF,PQ", b"IHNf": "HNSW,Flat",
    b"IHNs": "HNSW,SQ", b"IHNp": "HNSW,PQ", b"IxPq": "PQ", b"IxPQ": "PQ", b"IxPo": "PQ", b"IxSQ": "SQ",
    b"IxPT": "transformed vectors", b"IxRF": "refined vectors", b"IxHe": "LSH",
    b"IBwF": "binary IVF", b"IBHf": "binary HNSW", b"INSf": "NSG",
}  # fmt: skip
# In the file format, metric types above L2 are followed by an argument of the metric.
_INNER_PRODUCT, _L2 = 0, 1


class FaissReader:
    """Reader for files of `faiss.write_index` with an IndexFlat or IndexBinaryFlat, optionally in an IndexIDMap."""

    name = "faiss"
    suffixes = (".faiss", ".index")

    def can_read(self, path: Path, head: bytes) -> bool:
        return head[:4] in (*_FLAT, *_MAPS, _BITS, *_OTHERS)

    def open(self, path: Path) -> EmbeddingFile:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            kind = file.read(4)
            if kind in _MAPS:
                count = _header(file, path, is_binary=kind.startswith(b"IB"))[1]
                kind = file.read(4)
                vectors = _vectors(file, path, kind, size)
                ids = FileRegion(path, *_data(file, path, size, 8, count), "<i8")
                return EmbeddingFile.at(path, self.name, [vectors, ArrayEntry.from_region("ids", ids)])
            return EmbeddingFile.at(path, self.name, [_vectors(file, path, kind, size)])


def _vectors(file: BinaryIO, path: Path, kind: bytes, size: int) -> ArrayEntry:
    """Move the file position to the end of the index."""
    if kind not in (*_FLAT, _BITS):
        what = _OTHERS.get(kind, f"type {kind!r}")
        raise DataError(
            f"{path} is a faiss index of {what}, which does not store plain vectors; convert it: "
            f"i = faiss.read_index({path.name!r}); numpy.save('vectors.npy', i.reconstruct_n(0, i.ntotal))"
        )
    dim, count = _header(file, path, is_binary=kind == _BITS)
    if kind == _BITS:
        offset, shape = _data(file, path, size, 1, count, dim // 8)
        return bits_entry(ArrayEntry.from_region("", FileRegion(path, offset, shape, "|u1")))
    offset, shape = _data(file, path, size, 4, count, dim)
    return ArrayEntry.from_region("", FileRegion(path, offset, shape, "<f4"))


def _header(file: BinaryIO, path: Path, *, is_binary: bool) -> tuple[int, int]:
    dim, _, count = _read(file, path, "<iiq") if is_binary else (*_read(file, path, "<i"), 0, *_read(file, path, "<q"))
    if not is_binary:
        _read(file, path, "<qq")
    _, metric = _read(file, path, "<Bi")
    if not is_binary and metric not in (_INNER_PRODUCT, _L2):
        _read(file, path, "<f")
    if dim < 1 or count < 0:
        raise DataError(f"{path} is a damaged faiss index: {count} vectors of dim {dim}; write it again")
    return dim, count


def _data(file: BinaryIO, path: Path, size: int, itemsize: int, *shape: int) -> tuple[int, tuple[int, ...]]:
    """Move the file position to the end of the array."""
    # The file stores the number of elements (floats, bytes or ids), not their size in bytes.
    (count,) = _read(file, path, "<Q")
    offset, expected = file.tell(), 1
    for length in shape:
        expected *= length
    if count != expected or offset + expected * itemsize > size:
        raise DataError(
            f"{path} is a damaged faiss index: shape {shape} needs {expected * itemsize:,} bytes, but the file "
            f"has {size - offset:,}; write it again"
        )
    file.seek(offset + expected * itemsize)
    return offset, shape


def _read(file: BinaryIO, path: Path, form: str) -> tuple[int, ...]:
    data = file.read(struct.calcsize(form))
    if len(data) < struct.calcsize(form):
        raise DataError(f"{path} is a truncated faiss index; write it again")
    return struct.unpack(form, data)
