"""`EmbeddingStore`: named arrays of N items with presence, ids, labels, split, and a common fingerprint.

N items, W dimension of a column.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unialign._checks import check_choice
from unialign._html import html_table
from unialign.data import _layout
from unialign.data._item_values import check_values, default_values
from unialign.data._layout import DESCRIPTION_FILE, SPLITS, Description, parse_description
from unialign.data._storage import FolderStorage, MemoryStorage, parse_names
from unialign.data._validation import Content, StoreOptions, check_column, chosen_columns, validate
from unialign.data._write import Overwrite, check_target, keep_in_memory, write_folder
from unialign.errors import ConfigError, DataError
from unialign.io import checked_path

__all__ = ["EmbeddingStore"]


class EmbeddingStore:
    """Read-only features of N items in named columns (modalities).

    Create one with `open` (a folder), `write` (arrays into a folder) or `from_arrays` (arrays in memory). Opening reads
    only `store.json`; arrays are memory-mapped on first use. Accessors raise DataError with the name of a file that is
    missing, truncated, of another type, or a link out of the folder; `verify` also compares checksums.
    """

    def __init__(self, description: Description, storage: FolderStorage | MemoryStorage) -> None:
        """Private; use `open`, `write` or `from_arrays`."""
        self._description = description
        self._storage = storage
        self._fingerprint = description.fingerprint()
        self._cache: dict[str, Any] = {}

    # --- creation ---------------------------------------------------------------------------------------------------

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "EmbeddingStore":
        """Open a store folder; takes milliseconds at any N.

        Raises:
            DataError: no such folder, or `store.json` is missing, malformed or of an unknown schema.
        """
        storage = FolderStorage(checked_path(path, "the store", error=DataError))
        return cls(parse_description(storage.description(), storage.path / DESCRIPTION_FILE), storage)

    @classmethod
    def write(
        cls,
        path: str | os.PathLike[str],
        columns: Mapping[str, ArrayLike],
        *,
        name: str | None = None,
        overwrite: Overwrite = "never",
        **options: Unpack[StoreOptions],
    ) -> "EmbeddingStore":
        """Write arrays into a new folder atomically, and open it.

        Args:
            path: the folder to create; missing parents are created too.
            columns: name -> (N, W) array or tensor of float16, float32 or float64. Names become file names: ASCII
                letters, digits, `_`, `.` and `-`.
            name: name of the data in reports. Default: the folder's name.
            overwrite: "replace" replaces an existing store, but never other files at `path`. A process killed between
                the two renames of a replacement leaves the old store beside the path as `.NAME.*.old`, one killed
                earlier leaves a `.NAME.*.partial` that may be deleted. If several processes write at once, the last one
                wins.
            present: name -> (N,) bool; columns not listed have all rows. Absent rows may hold any values, even NaN.
            ids: (N,) integers; same-id items are never each other's negatives. Default: all different.
            groups: (N,) integers; items of a group must share a split. Default: one group per item.
            labels: (N,) integers, -1 = unlabeled. Default: unlabeled.
            label_names: text of each label.
            split: (N,) of "train", "val", "test" or 0, 1, 2. Default: all "train" (see `random_split`).
            names: N item names for reports.
            provenance: JSON object that describes how the data were created; its entry "columns" describes each column.
            default_modalities: columns used if none are selected. Default: all, in the given order.
            assets: file name -> bytes, such as thumbnails.

        Raises:
            ShapeError: not two-dimensional, not float, or different numbers of rows.
            NonFiniteError: a present row holds NaN or infinity, or only zeros.
            DataError: unsafe names, split or labels out of range, a group that crosses splits, `path` exists, or the
                file system failed.
            ConfigError: an unknown option, or an unknown column in `present`, `provenance` or `default_modalities`.
        """
        target = _target(path, overwrite)
        content = validate(columns, target.name if name is None else name, options)
        # Do not reopen by path, since another writer may be replacing the folder.
        return cls(write_folder(content, target, overwrite=overwrite), FolderStorage(target))

    @classmethod
    def from_arrays(
        cls, columns: Mapping[str, ArrayLike], *, name: str = "arrays", **options: Unpack[StoreOptions]
    ) -> "EmbeddingStore":
        """Create a store in memory from arrays or tensors, with the options, checks and fingerprint of `write`.

        Arrays are not copied; if they are modified later, `verify` raises.
        """
        description, files = keep_in_memory(validate(columns, name, options))
        return cls(description, MemoryStorage(files))

    def save(self, path: str | os.PathLike[str], *, overwrite: Overwrite = "never") -> "EmbeddingStore":
        """Write the store into a folder atomically, as `write` does, and open it with the same fingerprint.

        Raises:
            DataError: `path` exists, a file system error, or a file of this store is damaged or was modified.
        """
        target = _target(path, overwrite)
        saved = EmbeddingStore(write_folder(self._content(), target, overwrite=overwrite), FolderStorage(target))
        saved.check_fingerprint(self._fingerprint)
        return saved

    def select(self, columns: Sequence[str]) -> "EmbeddingStore":
        """Return the same data with other default modalities, in the given order; ConfigError for unknown columns."""
        chosen = chosen_columns(columns, self._description.columns)
        return EmbeddingStore(replace(self._description, default_modalities=chosen), self._storage)

    # --- description --------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Name of the data in reports."""
        return self._description.name

    @property
    def path(self) -> Path | None:
        """Folder, or None for arrays in memory."""
        return self._storage.path

    @property
    def items(self) -> int:
        """N."""
        return self._description.items

    @property
    def modalities(self) -> tuple[str, ...]:
        """Default columns, or those of `select`."""
        return self._description.default_modalities

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns."""
        return tuple(self._description.columns)

    @property
    def fingerprint(self) -> str:
        """sha256 over array and provenance of every column, presence, ids, groups, labels and split.

        It identifies the data: names, assets and the selected modalities do not affect it.
        """
        return self._fingerprint

    @property
    def provenance(self) -> dict[str, Any]:
        """Description of how the data were created, as given to `write`."""
        by_column = {
            name: column.provenance
            for name, column in self._description.columns.items()
            if column.provenance is not None
        }
        return {**self._description.provenance, **({"columns": by_column} if by_column else {})}

    @property
    def label_names(self) -> tuple[str, ...]:
        """Text of each label; empty if none were given."""
        return self._description.label_names

    @property
    def assets(self) -> tuple[str, ...]:
        """Names of the assets."""
        return tuple(self._description.assets)

    def dim(self, name: str) -> int:
        """W of a column."""
        check_column(name, self._description.columns)
        return self._description.columns[name].dim

    def checksum(self, name: str) -> str:
        """sha256 of a column's array file."""
        check_column(name, self._description.columns)
        return self._description.columns[name].array.sha256

    # --- arrays -------------------------------------------------------------------------------------------------------

    def array(self, name: str) -> NDArray[np.floating[Any]]:
        """Return the read-only (N, W) memory map of a column in its stored dtype; absent rows may hold NaN."""
        check_column(name, self._description.columns)
        column = self._description.columns[name]
        file = _layout.array_file(name)
        if file not in self._cache:
            self._cache[file] = self._storage.array(file, column.array, column.dtype, (self.items, column.dim))
        array_NW: NDArray[np.floating[Any]] = self._cache[file]
        return array_NW

    def present(self, name: str) -> NDArray[np.bool_]:
        """Return the (N,) bool mask of items with a row in the column."""
        check_column(name, self._description.columns)
        record = self._description.columns[name].present
        file = _layout.present_file(name)
        if file not in self._cache:
            if record is None:
                self._cache[file] = _frozen(np.ones(self.items, dtype=np.bool_))
            else:
                self._cache[file] = self._storage.array(file, record, np.bool_, (self.items,))
        mask_N: NDArray[np.bool_] = self._cache[file]
        return mask_N

    @property
    def ids(self) -> NDArray[np.int64]:
        """(N,) ids; same-id items are never each other's negatives."""
        return self._rows("ids")

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
        codes_N: NDArray[np.int8] = self._rows("split")
        return codes_N

    def rows(self, split: str) -> NDArray[np.int64]:
        """Return the ascending row numbers of "train", "val" or "test"; ConfigError for another name."""
        check_choice("split", split, SPLITS)
        return np.flatnonzero(self.split == SPLITS.index(split)).astype(np.int64)

    @property
    def item_names(self) -> tuple[str, ...]:
        """N texts for reports; "item 0", "item 1", ... if none were given."""
        if _layout.NAMES_FILE not in self._cache:
            record = self._description.names
            if record is None:
                names = tuple(f"item {row}" for row in range(self.items))
            else:
                text = self._storage.content(_layout.NAMES_FILE, record)
                names = parse_names(text, self.items, self._where(_layout.NAMES_FILE))
            self._cache[_layout.NAMES_FILE] = names
        item_names: tuple[str, ...] = self._cache[_layout.NAMES_FILE]
        return item_names

    def asset(self, name: str) -> bytes:
        """Return the bytes of an asset; ConfigError for an unknown name."""
        if not isinstance(name, str) or name not in self._description.assets:
            known = ", ".join(map(repr, self.assets)) or "none"
            raise ConfigError(f"unknown asset {name!r}; the store has {known}")
        return self._storage.content(_layout.asset_file(name), self._description.assets[name])

    # --- integrity ----------------------------------------------------------------------------------------------------

    def verify(self) -> None:
        """Read all files and compare checksums; DataError with the name of a modified file."""
        self._storage.verify_description()
        for file, record in self._description.files().items():
            self._storage.verify(file, record)

    def check_fingerprint(self, fingerprint: str) -> None:
        """Raise DataError unless the data have this fingerprint."""
        if fingerprint != self._fingerprint:
            raise DataError(
                f"the data {self.name!r} has fingerprint {self._fingerprint}, expected {fingerprint}: it is another "
                f"revision than the one used before; use that revision, or start a new run with this one"
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

    def __getstate__(self) -> dict[str, Any]:
        # Pickling a memory map would copy it in full into every worker process, so workers map the file again.
        return {**self.__dict__, "_cache": {}}

    def _rows(self, kind: str) -> NDArray[Any]:
        file = _layout.rows_file(kind)
        if file not in self._cache:
            record = self._description.rows.get(kind)
            if record is None:
                values_N = _frozen(default_values(kind, self.items))
            else:
                values_N = self._storage.array(file, record, _layout.ROW_DTYPES[kind], (self.items,))
                check_values(kind, values_N, self.label_names, self._where(file))
            self._cache[file] = values_N
        rows_N: NDArray[Any] = self._cache[file]
        return rows_N

    def _content(self) -> Content:
        """Return the full content of the store, as `validate` does."""
        described = self._description
        return Content(
            name=self.name,
            items=self.items,
            columns={name: self.array(name) for name in self.columns},
            present={name: self.present(name) for name, column in described.columns.items() if column.present},
            rows={kind: self._rows(kind) for kind in described.rows},
            names=None if described.names is None else self.item_names,
            assets={name: self.asset(name) for name in self.assets},
            default_modalities=self.modalities,
            label_names=self.label_names,
            provenance=described.provenance,
            column_provenance={name: column.provenance for name, column in described.columns.items()},
        )

    def _where(self, file: str) -> str:
        return file if self.path is None else str(self.path / file)


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False
    return array


def _target(path: str | os.PathLike[str], overwrite: Overwrite) -> Path:
    """Return the absolute path to write to, validated before any array is read."""
    if overwrite not in ("never", "replace"):
        raise ConfigError(f"overwrite is {overwrite!r}, expected 'never' or 'replace'")
    target = Path(os.path.abspath(checked_path(path, "the store", error=DataError)))
    check_target(target, overwrite=overwrite)
    return target
