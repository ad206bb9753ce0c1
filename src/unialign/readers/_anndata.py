"""Read embeddings and per-cell values of AnnData (.h5ad) and MuData (.h5mu) files.

Shapes: `N` cells, `D` dimension, `c` rows of a chunk, `n` requested rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.errors import DataError
from unialign.readers._array_items import ArrayFile, MatrixColumn
from unialign.readers._entry import ArrayEntry, unreadable
from unialign.readers._hdf5_rows import Hdf5Rows, dataset_problem, opened, texts
from unialign.readers._rows import GatheredRows, gathered, rows_per_chunk

__all__ = ["anndata_entries", "mudata_entries", "mudata_matrices"]

Array = NDArray[Any]
Entries = tuple[list[ArrayEntry], list[str]]

# Sparse matrices with more columns than this are assumed to contain gene counts.
_MAX_SPARSE_DIM = 8192
_MAP_NAMES = ("umap", "tsne", "draw_graph", "diffmap", "spatial")
# Columns of `obs` that are read as per-item values.
_VALUES = ("labels", "groups", "split")


def anndata_entries(path: Path, file: Any) -> Entries:
    matrices = _matrices(path, file)
    entries = [ArrayEntry("ids", (_length(file["obs"]),), "<U1", unreadable, partial(_index, path, "obs"))]
    for name in file["obs"]:
        if name != _index_name(file["obs"]):
            entries.append(_column(path, file, name))
    return [*matrices, *entries], []


def mudata_entries(path: Path, file: Any) -> Entries:
    entries: list[ArrayEntry] = []
    items = _length(file["obs"])
    for name in _in_order(file["mod"]):
        matrices = [entry for entry in _matrices(path, file["mod"][name]) if not entry.skipped]
        row_N = _rows_of(path, file, name, items)
        single = sum(entry.is_default for entry in matrices) == 1
        for entry in matrices:
            key = name if single and entry.is_default else f"{name}.{entry.key.rpartition('/')[2]}"
            entries.append(_gathered_entry(entry, key, row_N))
            if (row_N < 0).any():
                entries.append(ArrayEntry.from_array(f"present.{key}", row_N >= 0))
    entries.append(ArrayEntry("ids", (items,), "<U1", unreadable, partial(_index, path, "obs")))
    return entries, []


def mudata_matrices(path: Path, file: Any) -> ArrayFile:
    """Return the matrices of all modalities, and the per-cell values."""
    columns = []
    items = _length(file["obs"])
    for name in _in_order(file["mod"]):
        row_N = _rows_of(path, file, name, items)
        matrices = _matrices(path, file["mod"][name])
        single = sum(entry.is_default and not entry.skipped for entry in matrices) == 1
        for entry in matrices:
            is_default = entry.is_default and not entry.skipped
            base = entry.key.rpartition("/")[2]
            columns.append(
                MatrixColumn(
                    name if single and is_default else f"{name}.{base}",
                    f"mod/{name}/{entry.key}",
                    items,
                    row_N,
                    aliases=(f"{name}/{entry.key}", f"{name}.{base}"),
                    skipped=entry.skipped,
                    is_default=is_default,
                )
            )
    index = _index_name(file["obs"])
    values = [_column(path, file, name) for name in file["obs"] if name != index]
    loads = {entry.key: entry.load for entry in values if entry.shape == (items,) and entry.kind in ("i", "u", "U")}
    return ArrayFile(path, columns, {**loads, "ids": partial(_index, path, "obs")})


def _in_order(group: Any) -> list[str]:
    order = [str(name) for name in group.attrs.get("mod-order", ())]
    return order if sorted(order) == sorted(group) else list(group)


def _matrices(path: Path, group: Any) -> list[ArrayEntry]:
    found = []
    for name in group.get("obsm", {}):
        entry = _matrix(path, group["obsm"][name], f"obsm/{name}")
        is_map = any(word in name.lower() for word in _MAP_NAMES) or (len(entry.shape) == 2 and entry.shape[1] <= 3)
        found.append(replace(entry, is_default=not is_map))
    has_embedding = any(entry.is_default and not entry.skipped for entry in found)
    if "X" in group:
        found.append(replace(_matrix(path, group["X"], "X"), is_default=not has_embedding))
    found += [
        replace(_matrix(path, group["layers"][name], f"layers/{name}"), is_default=False)
        for name in group.get("layers", {})
    ]
    return found


def _matrix(path: Path, data: Any, key: str) -> ArrayEntry:
    encoding = str(data.attrs.get("encoding-type", ""))
    if hasattr(data, "dtype"):
        problem = dataset_problem(data)
        if problem:
            return ArrayEntry.ignored(key, problem)
        shape = tuple(map(int, data.shape))
        rows = partial(Hdf5Rows, path, data.name, shape, data.dtype.str)
        return ArrayEntry(key, shape, data.dtype.str, rows, partial(_load_dense, path, data.name))
    if encoding != "csr_matrix":
        return ArrayEntry.ignored(
            key, f"a {encoding or 'group'}; save a dense array or a CSR matrix, such as x.tocsr()"
        )
    shape = tuple(map(int, data.attrs["shape"]))
    if len(shape) != 2 or shape[1] > _MAX_SPARSE_DIM:
        what = (
            f"a sparse matrix of shape {shape}, which has more than {_MAX_SPARSE_DIM:,} columns and probably contains "
            "counts; compute obsm/X_pca first"
        )
        return ArrayEntry.ignored(key, what)
    for part in ("data", "indices", "indptr"):
        problem = dataset_problem(data[part])
        if problem:
            return ArrayEntry.ignored(key, problem)
    if data["indptr"].shape != (shape[0] + 1,) or data["data"].shape != data["indices"].shape:
        raise DataError(
            f"{path}: {key} is a damaged sparse matrix: its arrays do not match shape {shape}; write it again"
        )
    sparse = partial(_SparseRows, path, data.name, shape)
    return ArrayEntry(key, shape, "<f4", sparse, lambda: sparse().take(range(shape[0])))


def _load_dense(path: Path, name: str) -> Array:
    with opened(path) as file:
        array: Array = file[name][()]
        return array


class _SparseRows:
    def __init__(self, path: Path, name: str, shape: tuple[int, int]) -> None:
        self.path, self.name, self.shape, self.dtype = path, name, shape, "float32"

    def chunks(self) -> Iterator[Array]:
        step = rows_per_chunk(self.shape[1] * 4)
        with opened(self.path) as file:
            for start in range(0, self.shape[0], step):
                yield self._read(file[self.name], start, min(self.shape[0], start + step))

    def take(self, rows_n: Sequence[int]) -> Array:
        with opened(self.path) as file:
            found = [self._read(file[self.name], row, row + 1) for row in rows_n]
        return np.concatenate(found) if found else np.empty((0, self.shape[1]), np.float32)

    def _read(self, group: Any, start: int, stop: int) -> Array:
        bound_c = np.asarray(group["indptr"][start : stop + 1], np.int64)
        counts_c = np.diff(bound_c)
        if (counts_c < 0).any() or bound_c[0] < 0 or bound_c[-1] > group["data"].shape[0]:
            raise DataError(f"{self.path}: {self.name} is a damaged sparse matrix; write it again")
        columns = np.asarray(group["indices"][bound_c[0] : bound_c[-1]], np.int64)
        if columns.size and not 0 <= columns.min() <= columns.max() < self.shape[1]:
            raise DataError(f"{self.path}: {self.name} has a column index outside shape {self.shape}; write it again")
        dense_cD = np.zeros((stop - start, self.shape[1]), np.float32)
        # Add repeated entries, as SciPy does.
        place = (np.repeat(np.arange(stop - start), counts_c), columns)
        np.add.at(dense_cD, place, np.asarray(group["data"][bound_c[0] : bound_c[-1]], np.float32))
        return dense_cD


def _gathered_entry(entry: ArrayEntry, key: str, row_N: NDArray[np.int64]) -> ArrayEntry:
    shape = (len(row_N), entry.shape[1])
    return replace(
        entry,
        key=key,
        shape=shape,
        rows=lambda: GatheredRows(entry.rows(), row_N),
        load=lambda: gathered(entry.load(), row_N),
    )


def _rows_of(path: Path, file: Any, modality: str, items: int) -> NDArray[np.int64]:
    """Return the row of each cell in the modality; -1 for absent cells."""
    rows = _length(file["mod"][modality]["obs"])
    if "obsmap" in file and modality in file["obsmap"]:
        row_N = np.asarray(file["obsmap"][modality][()], np.int64).reshape(-1) - 1
    else:
        place = {cell: i for i, cell in enumerate(_index(path, f"mod/{modality}/obs").tolist())}
        row_N = np.array([place.get(cell, -1) for cell in _index(path, "obs").tolist()], np.int64)
    if row_N.shape != (items,) or (row_N >= rows).any() or (row_N < -1).any():
        raise DataError(f"{path}: obsmap/{modality} does not match {items} cells and {rows} rows; write it again")
    return row_N


def _index_name(obs: Any) -> str:
    name = obs.attrs.get("_index", "_index")
    return name.decode() if isinstance(name, bytes) else str(name)


def _length(obs: Any) -> int:
    return int(obs[_index_name(obs)].shape[0])


def _index(path: Path, obs: str) -> Array:
    with opened(path) as file:
        data = file[obs][_index_name(file[obs])]
        name, is_text = data.name, data.dtype.kind == "O"
    return texts(path, name) if is_text else _load_dense(path, name).astype(np.str_)


def _column(path: Path, file: Any, name: str) -> ArrayEntry:
    data = file["obs"][name]
    key = name if name in _VALUES else f"obs/{name}"
    if hasattr(data, "dtype"):
        is_text = data.dtype.kind == "O"
        load = partial(texts if is_text else _load_dense, path, data.name)
        return ArrayEntry(key, tuple(data.shape), "<U1" if is_text else data.dtype.str, unreadable, load)
    if "codes" not in data or "categories" not in data:
        return ArrayEntry.ignored(key, "a column with missing values")
    return ArrayEntry(key, tuple(data["codes"].shape), "<U1", unreadable, partial(_categorical, path, data.name))


def _categorical(path: Path, name: str) -> Array:
    with opened(path) as file:
        categories = file[name]["categories"]
        text, place = categories.dtype.kind == "O", categories.name
        codes_N = np.asarray(file[name]["codes"][()], np.int64)
    known = texts(path, place) if text else _load_dense(path, place).astype(np.str_)
    if codes_N.size and not -1 <= codes_N.min() <= codes_N.max() < len(known):
        raise DataError(f"{path}: {name} has a code outside its categories; write it again")
    return np.append(known, "")[codes_N]  # -1 = missing
