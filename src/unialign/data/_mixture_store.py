"""A store that concatenates the rows of several stores without copying them.

Shapes: `N` items, `W` dimension of a column.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, BinaryIO, NoReturn

import numpy as np
from numpy.typing import DTypeLike, NDArray

from unialign.data import _mixture_values as values
from unialign.data._concatenated_column import ConcatenatedColumn
from unialign.data._encoder_fingerprint import stated_fingerprint
from unialign.data._layout import ITEM_DTYPES, Column, Description, FileRecord, array_file, present_file, rows_file
from unialign.data._row_blocks import RowReader
from unialign.data._sampling import mixture_fingerprint
from unialign.data._store import EmbeddingStore
from unialign.data._write import Overwrite
from unialign.errors import DataError, ShapeError
from unialign.io import canonical_json, digest

__all__ = ["MixtureStore"]

_SAVED_ROWS = 4096


class MixtureStore(EmbeddingStore):
    """Items of several stores, one store after another, with the modalities of all.

    Features are read from the sources when they are needed. `array` returns an array-like that supports indexing by
    rows, and `numpy.asarray`, which loads all rows. If a source lacks a modality, the rows of this source are absent in
    it. Assets of the sources are not included.
    """

    def __init__(self, sources: Mapping[str, EmbeddingStore], name: str, *, shared_ids: bool) -> None:
        """Private; use `Mixture`."""
        self._sources, self._shared_ids = dict(sources), shared_ids
        storage = _Storage(self._files(), self._identity())
        super().__init__(_description(self._sources, name, storage), storage)  # type: ignore[arg-type]
        self._fingerprint = storage.identity

    def _identity(self) -> str:
        fingerprints = {name: store.fingerprint for name, store in self._sources.items()}
        return mixture_fingerprint(fingerprints, shared_ids=self._shared_ids)

    def _files(self) -> dict[str, Callable[[], Any]]:
        """Return a function for each file of this store, which reads or computes the content of the file."""
        sources, shared = self._sources, self._shared_ids
        stores = list(sources.values())
        files: dict[str, Callable[[], Any]] = {}
        for name in dict.fromkeys(name for store in stores for name in store.modalities):
            having = [store for store in stores if name in store.modalities]
            files[array_file(name)] = partial(_column, name, stores)
            if len(having) < len(stores) or any(store._description.columns[name].present for store in having):
                files[present_file(name)] = partial(_present, name, stores)
        if shared or any(store.has_ids for store in stores):
            files[rows_file("ids")] = partial(values.combined_ids, sources, shared=shared)
        if shared or any("groups" in store._description.rows for store in stores):
            files[rows_file("groups")] = partial(values.combined_groups, sources, shared=shared)
        if any("labels" in store._description.rows for store in stores):
            files[rows_file("labels")] = partial(_labels, sources)
        if any("split" in store._description.rows for store in stores):
            files[rows_file("split")] = partial(_split, stores)
        return files

    @property
    def keys(self) -> tuple[str, ...] | None:
        """N text ids, prefixed with the name of the source unless ids are shared; None if no source has text ids."""
        if self._shared_ids:
            return self._cached("keys", lambda: values.shared_keys(self._sources))
        if all(store.keys is None for store in self._sources.values()):
            return None
        return self._cached("keys", lambda: values.prefixed_keys(self._sources))

    @property
    def has_names(self) -> bool:
        """Whether a source stores item names."""
        return any(store.has_names for store in self._sources.values())

    @property
    def item_names(self) -> tuple[str, ...]:
        """N item names, prefixed with the name of the source."""
        return self._cached("names", lambda: values.combined_names(self._sources))

    def item_name(self, row: int) -> str:
        """Return the name of an item without creating the names of all items."""
        for name, store in self._sources.items():
            if row < store.items:
                return f"{name}:{store.item_name(row)}"
            row -= store.items
        raise IndexError(f"row {row} is not a row of {self.name!r}")

    def save(self, path: str | os.PathLike[str], *, overwrite: Overwrite = "never") -> EmbeddingStore:
        """Write the rows of all sources into one store; the fingerprint of the new store is computed from its files.

        Raises:
            DataError: `path` exists, or a file system error occurs.
        """
        readers = {name: RowReader(self.array(name)) for name in self.columns}

        def parts() -> Iterator[Mapping[str, NDArray[Any]]]:
            for start in range(0, self.items, _SAVED_ROWS):
                rows = np.arange(start, min(start + _SAVED_ROWS, self.items))
                yield {name: reader.read(rows) for name, reader in readers.items()}

        return EmbeddingStore.write(
            path,
            parts(),
            overwrite=overwrite,
            name=self.name,
            present={name: self.present(name) for name in self.columns},
            ids=self.keys if self.keys is not None else self.ids if self.has_ids else None,
            groups=self.groups,
            labels=self.labels,
            label_names=self.label_names,
            split=self.split,
            names=self.item_names if self.has_names else None,
            provenance=self.provenance,
            default_modalities=self.modalities,
        )

    def verify(self) -> None:
        """Read all files of the sources and compare their checksums; raise DataError for a modified file."""
        for store in self._sources.values():
            store.verify()


class _Storage:
    """Generate the content of the files that the mixture would have if it were written."""

    path = None

    def __init__(self, files: Mapping[str, Callable[[], Any]], identity: str) -> None:
        self.files, self.identity = files, identity

    def record(self, file: str, size: int) -> FileRecord | None:
        if file not in self.files:
            return None
        # The sources determine the content, so its checksum is computed from their fingerprints, without reading files.
        return FileRecord(size, digest(canonical_json([self.identity, file])))

    def array(self, file: str, record: FileRecord, dtype: DTypeLike, shape: tuple[int, ...]) -> Any:
        found = self.files[file]()
        if isinstance(found, np.ndarray):
            found.flags.writeable = False
        return found

    def chunks(self, file: str, record: FileRecord) -> Iterable[bytes]:
        self._raise(file)

    def open(self, file: str, record: FileRecord) -> BinaryIO:
        self._raise(file)

    def _raise(self, file: str) -> NoReturn:
        raise DataError(f"a mixture has no file {file!r}; read it from one of the sources")


def _description(sources: Mapping[str, EmbeddingStore], name: str, storage: _Storage) -> Description:
    stores = list(sources.values())
    items = sum(store.items for store in stores)
    columns = {}
    for column in dict.fromkeys(column for store in stores for column in store.modalities):
        having = {name: store for name, store in sources.items() if column in store.modalities}
        dim, dtype = _check_column(column, having)
        size = items * dim * dtype.itemsize
        record = storage.record(array_file(column), size)
        assert record is not None
        mask = storage.record(present_file(column), items)
        columns[column] = Column(dtype.name, dim, record, mask, _provenance(column, list(having.values())))
    rows = {
        kind: record
        for kind in ("ids", "groups", "labels", "split")
        if (record := storage.record(rows_file(kind), items * np.dtype(ITEM_DTYPES[kind]).itemsize)) is not None
    }
    return Description(
        name=name,
        items=items,
        columns=columns,
        default_modalities=tuple(columns),
        rows=rows,
        names=None,
        assets={},
        label_names=values.combined_labels(sources)[1] if "labels" in rows else (),
        provenance={"mixture": {name: store.fingerprint for name, store in sources.items()}},
    )


def _check_column(column: str, having: Mapping[str, EmbeddingStore]) -> tuple[int, np.dtype[Any]]:
    first, *others = having
    for other in others:
        dims = having[first].dim(column), having[other].dim(column)
        if dims[0] != dims[1]:
            raise ShapeError(
                f"{column!r} has dim {dims[0]} in the source {first!r} and dim {dims[1]} in {other!r}; features of one "
                "modality must be from one encoder, so encode one source again, or give the modalities different names"
            )
    stated = {name: found for name, store in having.items() if (found := stated_fingerprint(store, column)) is not None}
    for other in list(stated)[1:]:
        first = next(iter(stated))
        if stated[other] != stated[first]:
            raise DataError(
                f"{column!r} was computed by different encoders in the sources {first!r} (fingerprint "
                f"{stated[first][:12]}) and {other!r} (fingerprint {stated[other][:12]}), whose features are not "
                "comparable; encode one source again, or give the modalities different names"
            )
    dtypes = [store._description.columns[column].dtype for store in having.values()]
    return having[first].dim(column), np.result_type(*dtypes)


def _provenance(column: str, having: list[EmbeddingStore]) -> Any:
    """Return the provenance of the column in the first source; None if a source does not state its encoder."""
    if any(stated_fingerprint(store, column) is None for store in having):
        return None
    return having[0].provenance["columns"][column]


def _column(name: str, stores: Iterable[EmbeddingStore]) -> Any:
    parts = [store.array(name) if name in store.modalities else store.items for store in stores]
    arrays = [part for part in parts if not isinstance(part, int)]
    return ConcatenatedColumn(parts, np.result_type(*(array.dtype for array in arrays)), arrays[0].shape[1])


def _present(name: str, stores: Iterable[EmbeddingStore]) -> NDArray[np.bool_]:
    return np.concatenate(
        [store.present(name) if name in store.modalities else np.zeros(store.items, np.bool_) for store in stores]
    )


def _labels(sources: Mapping[str, EmbeddingStore]) -> NDArray[np.int64]:
    return values.combined_labels(sources)[0]


def _split(stores: Iterable[EmbeddingStore]) -> NDArray[np.int8]:
    return np.concatenate([store.split for store in stores])
