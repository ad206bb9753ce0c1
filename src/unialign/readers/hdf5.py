"""Read HDF5 files, including AnnData and MuData; links to other files and virtual datasets are never followed."""

from collections.abc import Iterator, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from unialign._checks import one_line
from unialign._optional import optional_module
from unialign.errors import DataError, UniAlignError
from unialign.io import open_regular
from unialign.readers._anndata import anndata_entries, mudata_entries, mudata_matrices
from unialign.readers._array_items import ArrayFile, array_file, array_items
from unialign.readers._entry import ArrayEntry, EmbeddingFile, unreadable
from unialign.readers._hdf5_rows import Hdf5Rows, dataset_problem, opened, texts
from unialign.readers._item_records import ItemOptions, ItemRecords
from unialign.readers._rows import FileRegion

__all__ = ["Hdf5Reader"]

Array = NDArray[Any]

_MAGIC = b"\x89HDF\r\n\x1a\n"
_USER_BLOCK = 512
_MAX_ARRAYS, _MAX_DEPTH = 10_000, 16


class Hdf5Reader:
    name = "hdf5"
    suffixes = (".h5", ".hdf5", ".h5ad", ".h5mu")

    def can_read(self, path: Path, head: bytes) -> bool:
        if head.startswith(_MAGIC) or not head:
            return head.startswith(_MAGIC)
        # MuData and MATLAB 7.3 write 512 bytes of text before the signature.
        with open_regular(path) as file:
            file.seek(_USER_BLOCK)
            return file.read(len(_MAGIC)) == _MAGIC

    def open(self, path: Path) -> EmbeddingFile:
        _check_installed(path)
        try:
            with opened(path) as file:
                kind = str(file.attrs.get("encoding-type", ""))
                if _is_mudata(file):
                    entries, notes = mudata_entries(path, file)
                elif kind == "anndata" or {"X", "obs", "var"} <= set(file):
                    entries, notes = anndata_entries(path, file)
                else:
                    entries, notes = list(_entries(path, file)), []
                return EmbeddingFile.at(path, self.name, entries, notes=notes)
        except UniAlignError:
            raise
        except Exception as error:  # malicious input may raise any exception in the parser
            raise DataError(f"{path} is not a readable HDF5 file ({one_line(error)}); write it again") from None

    def read_items(self, paths: Sequence[Path], options: ItemOptions) -> ItemRecords:
        return array_items([self._matrices(path) for path in paths], options)

    def _matrices(self, path: Path) -> ArrayFile:
        _check_installed(path)
        with opened(path) as file:
            if _is_mudata(file):
                return mudata_matrices(path, file)
        return array_file(path, self.open(path))


def _check_installed(path: Path) -> None:
    optional_module("h5py", f"{path}: reading HDF5", "hdf5")


def _is_mudata(file: Any) -> bool:
    return str(file.attrs.get("encoding-type", "")) == "MuData" or ("mod" in file and "obsmap" in file)


def _entries(path: Path, group: Any, prefix: str = "", depth: int = 0) -> Iterator[ArrayEntry]:
    h5py = import_module("h5py")
    if len(group) > _MAX_ARRAYS or depth > _MAX_DEPTH:
        raise DataError(f"{path} has more than {_MAX_ARRAYS:,} arrays or {_MAX_DEPTH} levels of groups")
    for name in group:
        key = prefix + name
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            yield ArrayEntry.ignored(key, "a link, which is not followed")
            continue
        found = group[name]
        if isinstance(found, h5py.Group):
            yield from _entries(path, found, f"{key}/", depth + 1)
        elif isinstance(found, h5py.Dataset):
            yield dataset_entry(path, found, key)


def dataset_entry(path: Path, data: Any, key: str) -> ArrayEntry:
    problem = dataset_problem(data)
    if problem:
        return ArrayEntry.ignored(key, problem)
    shape = tuple(map(int, data.shape))
    if import_module("h5py").check_string_dtype(data.dtype):
        return ArrayEntry(key, shape, "<U1", unreadable, partial(texts, path, data.name))
    if "MATLAB_class" in data.attrs:
        return ArrayEntry.ignored(
            key, f"a MATLAB array, stored transposed; save h5py.File({path.name!r})[{key!r}][:].T with numpy.save"
        )
    offset = None if data.file.userblock_size else data.id.get_offset()
    if offset is not None and data.dtype.kind in "iufb":
        return ArrayEntry.from_region(key, FileRegion(path, offset, shape, data.dtype.str))
    rows = partial(Hdf5Rows, path, data.name, shape, data.dtype.str)
    return ArrayEntry(key, shape, data.dtype.str, rows, partial(_load, path, data.name))


def _load(path: Path, name: str) -> Array:
    with opened(path) as file:
        array: Array = file[name][()]
        return array
