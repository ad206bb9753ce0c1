"""`EmbeddingStore`: features of N items in named columns of dimension W."""

import os
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unialign._checks import check_choice
from unialign._html import html_table
from unialign.data import _layout
from unialign.data._layout import DESCRIPTION_FILE, SPLITS, check_unchanged, parse_description
from unialign.data._parts import in_parts, write_parts
from unialign.data._sampling import Sampling
from unialign.data._storage import FolderStorage, MemoryStorage, data_chunks
from unialign.data._store_files import StoreFiles
from unialign.data._validation import StoreOptions, chosen_columns, validate
from unialign.data._write import (
    Overwrite,
    new_store_folder,
    record_of,
    record_of_file,
    resolve_target,
    write_file,
)
from unialign.errors import ConfigError, DataError, ShapeError
from unialign.io import checked_path, digest

__all__ = ["EmbeddingStore"]


class EmbeddingStore(StoreFiles):
    """Read-only features of N items in named columns (modalities).

    Create a store with `open`, `write` or `from_arrays`. Opening reads only `store.json`; arrays are memory-mapped on
    first use. Accessors raise DataError if a file is missing or damaged; `verify` also compares checksums.
    """

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "EmbeddingStore":
        """Open a store folder.

        Raises:
            DataError: the folder does not exist, or `store.json` is missing, malformed or of an unknown schema.
        """
        storage = FolderStorage(checked_path(path, "the store", error=DataError))
        return cls(parse_description(storage.description(), storage.path / DESCRIPTION_FILE), storage)

    @classmethod
    def write(
        cls,
        path: str | os.PathLike[str],
        columns: Mapping[str, ArrayLike | Iterable[ArrayLike]] | Iterable[Mapping[str, ArrayLike]],
        *,
        name: str | None = None,
        overwrite: Overwrite = "never",
        **options: Unpack[StoreOptions],
    ) -> "EmbeddingStore":
        """Write arrays into a new folder atomically, and open it.

        Columns that are passed in parts may exceed main memory.

        Args:
            path: the folder to create; missing parents are created too.
            columns: name -> (N, W) array or tensor of float16, float32 or float64, or an iterator over (b, W)
                parts; or an iterator of mappings of name -> (b, W) rows of the same b items. Names are used as file
                names and may contain ASCII letters, digits, `_`, `.` and `-`.
            name: name of the data in reports. Default: the name of the folder.
            overwrite: "replace" replaces an existing store, but never other files at `path`.
            present: name -> (N,) bool. In columns that are not listed, all rows are present. Absent rows may hold any
                values, including NaN.
            ids: (N,) integers or strings; items with the same id are never negatives of each other. Default: unique
                ids.
            groups: (N,) integers; items of a group must be in the same split. Default: one group per item.
            labels: (N,) integers, -1 = unlabeled. Default: unlabeled.
            label_names: name of each label.
            split: (N,) of "train", "val", "test" or 0, 1, 2. Default: all "train" (see `random_split`).
            names: N item names for reports.
            provenance: JSON object that describes how the data were created; its entry "columns" describes each column.
            default_modalities: columns used if none are selected. Default: all, in the given order.
            assets: images of the items for reports: a folder, or column name -> a folder or a list of N image files
                (None: no image). Files in a folder are matched by the key, name or id of the items, else by order if
                there are N files, else by row number; each file must belong to an item. Images are stored with at most
                128 x 128 pixels. Other files are passed as file name -> bytes.

        Raises:
            ShapeError: a column is not two-dimensional or not float, or columns have different numbers of rows.
            NonFiniteError: a present row contains NaN, infinity or only zeros.
            DataError: a name is not a valid file name, a split or label is out of range, a group crosses splits, `path`
                exists, or a file system error occurs.
            ConfigError: an unknown option, or an unknown column in `present`, `provenance` or `default_modalities`.
        """
        target = resolve_target(path, overwrite)
        name = target.name if name is None else name
        is_whole = not in_parts(columns)
        if is_whole:
            # Validate before the folder is created.
            files, describe = validate(columns, name, options)  # type: ignore[arg-type]
        with new_store_folder(target, overwrite=overwrite) as partial:
            if not is_whole:
                arrays, written = write_parts(partial, columns, options.get("present"))
                files, describe = validate(arrays, name, options, checked=written)
            records = {
                file: record_of_file(partial / file)
                if (partial / file).exists()
                else write_file(partial / file, data_chunks(content))
                for file, content in files.items()
            }
            description = describe(records)
            write_file(partial / DESCRIPTION_FILE, [description.to_bytes()])
        # Do not reopen by path, since another writer may be replacing the folder.
        return cls(description, FolderStorage(target))

    @classmethod
    def from_arrays(
        cls, columns: Mapping[str, ArrayLike], *, name: str = "arrays", **options: Unpack[StoreOptions]
    ) -> "EmbeddingStore":
        """Create a store in memory from arrays or tensors, with the options, checks and fingerprint of `write`.

        Arrays are not copied.
        """
        if in_parts(columns):
            raise ShapeError("`from_arrays` requires whole arrays; use `write` for columns in parts")
        files, describe = validate(columns, name, options)
        return cls(describe({file: record_of(data) for file, data in files.items()}), MemoryStorage(files))

    def save(self, path: str | os.PathLike[str], *, overwrite: Overwrite = "never") -> "EmbeddingStore":
        """Write the store into a folder atomically, and open it; the fingerprint does not change.

        Raises:
            DataError: `path` exists, a file system error occurs, or a file of this store is damaged or modified.
        """
        target = resolve_target(path, overwrite)
        with new_store_folder(target, overwrite=overwrite) as partial:
            for file, record in self._description.files().items():
                self._check_unaltered(
                    file, record, write_file(partial / file, self._storage.chunks(file, record)).sha256
                )
            write_file(partial / DESCRIPTION_FILE, [self._description.to_bytes()])
        return EmbeddingStore(self._description, FolderStorage(target))

    def select(self, columns: Sequence[str]) -> "EmbeddingStore":
        """Return a store with these columns as default modalities, in this order; ConfigError for unknown columns."""
        selected = copy(self)
        chosen = chosen_columns(columns, self._description.columns)
        selected._description = replace(self._description, default_modalities=chosen)
        return selected

    @property
    def name(self) -> str:
        """Name of the data in reports."""
        return self._description.name

    @property
    def sampling(self) -> Sampling | None:
        """Sources of the rows and their sampling weights, for the data of a `Mixture`; else None."""
        return self._sampling

    def with_sampling(self, sampling: Sampling | None) -> "EmbeddingStore":
        """Return the same store with the sources of a `Mixture`, whose items are the rows of the store in order."""
        if sampling is not None and sum(sampling.items.values()) != self.items:
            raise ShapeError(f"the sources have {sum(sampling.items.values())} items, but the store has {self.items}")
        store = copy(self)
        store._sampling = sampling
        return store

    @property
    def path(self) -> Path | None:
        """Folder of the store, or None for arrays in memory."""
        return self._storage.path

    @property
    def items(self) -> int:
        """Number N of items."""
        return self._description.items

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the default columns, or of those chosen by `select`."""
        return self._description.default_modalities

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns."""
        return tuple(self._description.columns)

    @property
    def fingerprint(self) -> str:
        """sha256 of the columns, provenance, presence, ids, groups, labels and split, but not of names and assets."""
        return self._fingerprint

    @property
    def provenance(self) -> dict[str, Any]:
        """Description of how the data were created, as given to `write`."""
        columns = self._description.columns.items()
        by_column = {name: column.provenance for name, column in columns if column.provenance is not None}
        return {**self._description.provenance, **({"columns": by_column} if by_column else {})}

    @property
    def label_names(self) -> tuple[str, ...]:
        """Name of each label; empty if none were given."""
        return self._description.label_names

    @property
    def assets(self) -> tuple[str, ...]:
        """Names of the assets."""
        return tuple(self._description.assets)

    def dim(self, name: str) -> int:
        """Return the dimension W of a column."""
        return self._column(name).dim

    def checksum(self, name: str) -> str:
        """Return the sha256 of the array file of a column."""
        return self._column(name).array.sha256

    def array(self, name: str) -> NDArray[np.floating[Any]]:
        """Return the read-only (N, W) memory map of a column in its stored dtype; absent rows may hold NaN."""
        file, column = _layout.array_file(name), self._column(name)
        shape = (self.items, column.dim)
        return self._cached(file, lambda: self._storage.array(file, column.array, column.dtype, shape))

    def present(self, name: str) -> NDArray[np.bool_]:
        """Return the (N,) bool mask of the items that have a row in the column."""
        file, record = _layout.present_file(name), self._column(name).present
        return self._values("present", file, record)

    @property
    def has_ids(self) -> bool:
        """Whether ids are stored; otherwise, every item has a unique id."""
        return "ids" in self._description.rows

    @property
    def ids(self) -> NDArray[np.int64]:
        """(N,) ids, with text ids numbered by first appearance.

        Items with the same id are never negatives of each other.
        """
        return self._rows("ids")

    @property
    def keys(self) -> tuple[str, ...] | None:
        """N text ids, used to join other data; None if ids are integers or were not given."""
        record = self._description.keys
        if record is None:
            return None
        return self._cached(_layout.KEYS_FILE, lambda: self._read_texts(_layout.KEYS_FILE, record))

    @property
    def groups(self) -> NDArray[np.int64]:
        """(N,) groups; items of a group share a split, and the bootstrap resamples whole groups."""
        return self._rows("groups")

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,) class numbers, -1 = unlabeled."""
        return self._rows("labels")

    @property
    def split(self) -> NDArray[np.int8]:
        """(N,) codes: 0 = train, 1 = val, 2 = test."""
        return self._rows("split")

    def rows(self, split: str) -> NDArray[np.int64]:
        """Return the ascending row numbers of "train", "val" or "test"; ConfigError for another name."""
        check_choice("split", split, SPLITS)
        return np.flatnonzero(self.split == SPLITS.index(split)).astype(np.int64, copy=False)

    @property
    def item_names(self) -> tuple[str, ...]:
        """N item names for reports; "item 0", "item 1", ... if none were given."""
        return self._cached(_layout.NAMES_FILE, self._read_names)

    @property
    def has_names(self) -> bool:
        """Whether item names are stored."""
        return self._description.names is not None

    def item_name(self, row: int) -> str:
        """Return the name of an item without creating the names of all items."""
        return self.item_names[row] if self.has_names else f"item {row}"

    def asset(self, name: str) -> bytes:
        """Return the bytes of an asset; ConfigError for an unknown name."""
        with self.open_asset(name) as file:
            return file.read()

    def open_asset(self, name: str) -> BinaryIO:
        """Open an asset for reading, without loading it into memory; ConfigError for an unknown name."""
        if not isinstance(name, str) or name not in self._description.assets:
            known = ", ".join(map(repr, self.assets)) or "none"
            raise ConfigError(f"unknown asset {name!r}; the store has {known}")
        return self._storage.open(_layout.asset_file(name), self._description.assets[name])

    def verify(self) -> None:
        """Read all files and compare their checksums; raise DataError for a modified file."""
        if isinstance(self._storage, FolderStorage):
            check_unchanged(self._storage.description(), self._storage.path / DESCRIPTION_FILE)
        for file, record in self._description.files().items():
            self._check_unaltered(file, record, digest(self._storage.chunks(file, record)))

    def check_fingerprint(self, fingerprint: str) -> None:
        """Raise DataError unless the store has this fingerprint."""
        if fingerprint != self._fingerprint:
            raise DataError(
                f"the store {self.name!r} has fingerprint {self._fingerprint}, expected {fingerprint}; use the "
                f"expected revision of the data, or start a new run with this revision"
            )

    def __repr__(self) -> str:
        modalities = ", ".join(self.modalities)
        return f"EmbeddingStore({self.name!r}, {self.items} items, {modalities}, fingerprint {self._fingerprint[:12]})"

    def _repr_html_(self) -> str:
        counts = ", ".join(f"{int((self.split == code).sum()):,} {split}" for code, split in enumerate(SPLITS))
        rows = [
            (name, column.dim, column.dtype, f"{self.present(name).mean():.1%}")
            for name, column in self._description.columns.items()
        ]
        caption = f"EmbeddingStore {self.name}: {self.items:,} items ({counts}), fingerprint {self._fingerprint[:12]}"
        return html_table(rows, head=("column", "dim", "dtype", "present"), caption=caption)
