"""Open HDF5 files, check datasets before reading, and read rows of dense datasets in chunks."""

import contextlib
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign._checks import one_line
from unialign.errors import DataError, UniAlignError
from unialign.io import open_regular
from unialign.readers._rows import rows_per_chunk, to_float

__all__ = ["Hdf5Rows", "dataset_problem", "opened", "texts"]

Array = NDArray[Any]

# The maximum compression ratio of gzip is about 1,030; an array that declares a higher ratio is invalid.
_MAX_RATIO, _SMALL = 2048, 1 << 26
_MAX_CHUNK_BYTES = 1 << 30
_MAX_TEXTS = 1 << 28


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    try:
        with open_regular(path) as stream, import_module("h5py").File(stream, "r") as file:
            yield file
    except UniAlignError:
        raise
    except Exception as error:  # malicious input may raise any exception in the parser
        raise DataError(f"{path} cannot be read as HDF5 ({one_line(error)}); write it again") from None


def dataset_problem(data: Any) -> str:
    """Return the reason why a dataset cannot be read, or ""."""
    if data.external or data.is_virtual:
        return "its values are in another file, which is not read"
    if data.shape is None:
        return "an empty dataset"
    if import_module("h5py").check_string_dtype(data.dtype) is None and data.dtype.kind not in "iufb":
        return f"a dataset of dtype {data.dtype}"
    size = int(np.prod(data.shape, dtype=object)) * data.dtype.itemsize
    stored = data.id.get_storage_size()
    if size > _SMALL and size > _MAX_RATIO * stored:
        return f"it declares {size:,} bytes, but the file contains only {stored:,} bytes"
    if data.chunks and int(np.prod(data.chunks, dtype=object)) * data.dtype.itemsize > _MAX_CHUNK_BYTES:
        return f"its chunks are larger than {_MAX_CHUNK_BYTES >> 30} GiB; write it with smaller chunks"
    return ""


def texts(path: Path, name: str) -> Array:
    with opened(path) as file:
        data = file[name]
        if data.size > _MAX_TEXTS:
            raise DataError(f"{path}: {name!r} has {data.size:,} strings; at most {_MAX_TEXTS:,} are read")
        return np.asarray(data.asstr()[()]).astype(np.str_)


class Hdf5Rows:
    def __init__(self, path: Path, name: str, shape: tuple[int, ...], dtype: str) -> None:
        self.path, self.name, self.shape, self.dtype = path, name, (shape[0], shape[1]), dtype

    def chunks(self) -> Iterator[Array]:
        with opened(self.path) as file:
            data = file[self.name]
            step = rows_per_chunk(self.shape[1] * data.dtype.itemsize)
            if data.chunks:
                # Read whole chunks of the file, so that no chunk is decompressed twice.
                step = max(1, step // data.chunks[0]) * data.chunks[0]
            for start in range(0, self.shape[0], step):
                yield to_float(data[start : start + step], self.dtype)

    def take(self, rows_n: Sequence[int]) -> Array:
        with opened(self.path) as file:
            if not len(rows_n):
                return np.empty((0, self.shape[1]), np.float32)
            rows, data = np.asarray(rows_n, dtype=np.int64), file[self.name]
            low, high = int(rows[0]), int(rows[-1]) + 1
            # Reading one slice is much faster than reading single rows.
            near = high - low <= 4 * len(rows)
            return to_float(data[low:high][rows - low] if near else data[rows], self.dtype)
