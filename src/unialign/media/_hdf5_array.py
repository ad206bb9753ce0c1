"""Read rows of dense and CSR matrices in HDF5 files; links and values in other files are never followed."""

from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from unialign._checks import one_line
from unialign._optional import optional_module
from unialign.errors import MediaError, UniAlignError
from unialign.media._stored_array import shape_of_rows

__all__ = ["Hdf5Array"]

Array = NDArray[Any]

# The maximum compression ratio of gzip is about 1,030; an array that declares a higher ratio is invalid.
_MAX_RATIO, _SMALL = 2048, 1 << 26
# Maximum size in bytes of the rows of one chunk that are kept, so that a chunk is not decompressed for each row.
_MAX_KEPT = 1 << 26


class Hdf5Array:
    """Matrix of an HDF5 file. If compressed rows are read in ascending order, each chunk is decompressed once."""

    def __init__(self, stream: BinaryIO, key: str | None) -> None:
        h5py = optional_module("h5py", "reading HDF5 files", "hdf5")
        if key is None:
            raise MediaError("wrong-shape", "specify the array of the HDF5 file as `key`, such as 'X' or 'obsm/X_pca'")
        try:
            self._file = h5py.File(stream, "r")
            self._node = _member(h5py, self._file, key)
            self._is_sparse = not isinstance(self._node, h5py.Dataset)
            if self._is_sparse:
                self.shape = _checked_csr(self._node)
            else:
                self._node = _checked(self._node)
                self.shape = shape_of_rows(tuple(map(int, self._node.shape)))
        except UniAlignError:
            raise
        except Exception as error:  # malicious input may raise any exception in the parser
            raise MediaError("undecodable", f"not a readable HDF5 file ({one_line(error)})") from None
        self._start, self._kept = 0, np.empty((0, 0))

    @property
    def row_bytes(self) -> int:
        return self.shape[1] * (4 if self._is_sparse else int(self._node.dtype.itemsize))

    def row(self, index: int) -> Array:
        try:
            return self._sparse_row(index) if self._is_sparse else self._dense_row(index)
        except UniAlignError:
            raise
        except Exception as error:  # malicious input may raise any exception in the parser
            raise MediaError("undecodable", f"row {index} cannot be read ({one_line(error)})") from None

    def _dense_row(self, index: int) -> Array:
        if not self._start <= index < self._start + len(self._kept):
            step = self._node.chunks[0] if self._node.chunks else 1
            step = step if step * self.row_bytes <= _MAX_KEPT else 1
            self._start = index - index % step
            self._kept = np.asarray(self._node[self._start : self._start + step])
        return np.asarray(self._kept[index - self._start]).reshape(-1)

    def _sparse_row(self, index: int) -> Array:
        start, stop = (int(bound) for bound in self._node["indptr"][index : index + 2])
        if not 0 <= start <= stop <= len(self._node["data"]) or stop - start > self.shape[1]:
            raise MediaError("undecodable", "the sparse matrix is damaged")
        columns = np.asarray(self._node["indices"][start:stop], np.int64)
        if columns.size and not 0 <= columns.min() <= columns.max() < self.shape[1]:
            raise MediaError("undecodable", "the sparse matrix has a column outside its shape")
        row_D = np.zeros(self.shape[1], np.float32)
        np.add.at(row_D, columns, np.asarray(self._node["data"][start:stop], np.float32))
        return row_D


def _member(h5py: Any, group: Any, key: str) -> Any:
    for part in key.strip("/").split("/"):
        link = group.get(part, getlink=True) if isinstance(group, h5py.Group) else None
        if link is None:
            raise MediaError("missing-file", f"the file has no array {key!r:.80}")
        if not isinstance(link, h5py.HardLink):
            raise MediaError("link-outside", f"{part!r:.80} is a link, which is not followed")
        group = group[part]
    return group


def _checked(data: Any) -> Any:
    if data.external or data.is_virtual:
        raise MediaError("link-outside", "the values are in another file, which is not read")
    if data.shape is None or data.dtype.kind not in "iufb":
        raise MediaError("wrong-shape", f"expected numbers, found a dataset of type {data.dtype}")
    size = int(np.prod(data.shape, dtype=object)) * data.dtype.itemsize
    if size > _SMALL and size > _MAX_RATIO * data.id.get_storage_size():
        raise MediaError("undecodable", f"the dataset declares {size:,} bytes, which the file cannot contain")
    return data


def _checked_csr(group: Any) -> tuple[int, int]:
    encoding = str(group.attrs.get("encoding-type", ""))
    if encoding != "csr_matrix":
        raise MediaError(
            "undecodable", f"expected an array, found a {encoding or 'group'}; save a dense array or a CSR matrix"
        )
    for part in ("data", "indices", "indptr"):
        _checked(group[part])
    rows, dim = (int(length) for length in group.attrs["shape"])
    if len(group["indptr"]) != rows + 1 or group["data"].shape != group["indices"].shape or dim < 1:
        raise MediaError("undecodable", f"the arrays of the sparse matrix do not match its shape ({rows}, {dim})")
    return rows, dim
