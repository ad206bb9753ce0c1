"""`EmbeddingStore`: named arrays of N items, with presence, ids, labels, split, and the fingerprint of what made them.

N items, W width of a column.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unialign._checks import check_choice
from unialign.data import _layout
from unialign.data._layout import DESCRIPTION_FILE, SPLITS, Description, parse_description
from unialign.data._storage import FolderSource, MemorySource, Source, parse_names
from unialign.data._validation import check_column, check_rows, chosen_columns, default_rows, validate
from unialign.data._write import Overwrite, keep_in_memory, refuse_existing, write_folder
from unialign.errors import ConfigError, DataError
from unialign.io import checked_path

__all__ = ["EmbeddingStore"]


class EmbeddingStore:
    """Features of N items seen through named columns (modalities), read-only.

    Make one with `open` (a folder), `write` (arrays into a folder) or `from_arrays` (arrays, no folder). Opening reads
    `store.json` only; arrays are mapped into memory when first asked for. Every reader raises DataError that names the
    file when one is missing, truncated, altered in kind, or a link out of the folder; `verify` also compares checksums.
    """

    def __init__(self, description: Description, source: Source) -> None:
        """For `open`, `write` and `from_arrays`; not meant to be called by users."""
        self._description = description
        self._source = source
        self._fingerprint = description.fingerprint()
        self._cache: dict[str, Any] = {}

    # --- making one ---------------------------------------------------------------------------------------------

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "EmbeddingStore":
        """Open a store folder; takes milliseconds at any N.

        Raises:
            DataError: no such folder, or `store.json` is missing, malformed or of an unknown schema.
        """
        source = FolderSource(checked_path(path, "the store", error=DataError))
        return cls(parse_description(source.description(), source.path / DESCRIPTION_FILE), source)

    @classmethod
    def write(
        cls,
        path: str | os.PathLike[str],
        columns: Mapping[str, ArrayLike],
        *,
        present: Mapping[str, ArrayLike] | None = None,
        ids: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        label_names: Sequence[str] | None = None,
        split: ArrayLike | None = None,
        names: Sequence[str] | None = None,
        provenance: Mapping[str, Any] | None = None,
        default_modalities: Sequence[str] | None = None,
        assets: Mapping[str, bytes] | None = None,
        name: str | None = None,
        overwrite: Overwrite = "never",
    ) -> "EmbeddingStore":
        """Write arrays into a new folder and open it. The folder appears complete or not at all.

        Args:
            path: the folder to make; missing parents are made too.
            columns: name -> (N, W) array or tensor of float16, float32 or float64. Names become file names: ASCII
                letters, digits, `_`, `.` and `-`.
            present: name -> (N,) bool; a column left out has all its rows. Absent rows may hold anything, NaN included.
            ids: (N,) integers; items with equal ids are never each other's negatives. Default: all different.
            group: (N,) integers; items of one group must be in one split. Default: every item its own.
            labels: (N,) integers, -1 = unlabelled. Default: unlabelled.
            label_names: text of each label.
            split: (N,) of "train", "val", "test" or 0, 1, 2. Default: everything "train" (see `random_split`).
            names: N texts that name the items to people.
            provenance: JSON object that says what made the data; its entry "columns" says it column by column.
            default_modalities: the columns used when nobody chooses. Default: all, in the order given.
            assets: file name -> bytes, for example thumbnails.
            name: name of the data in reports. Default: the folder's name.
            overwrite: "replace" replaces a store that stands there; anything else there is never touched. A process
                killed between the two renames of a replacement leaves the old store beside the path as `.NAME.*.old`,
                one killed earlier leaves a `.NAME.*.partial` that may be deleted. Of several writers at once, the last
                one's store stays.

        Raises:
            ShapeError: not two-dimensional, not float, or numbers of rows that differ.
            NonFiniteError: a present row holds NaN or infinity, or only zeros.
            DataError: unsafe names, split or labels out of range, a group that crosses splits, `path` exists, or the
                file system refuses.
            ConfigError: `present`, `provenance` or `default_modalities` speak of an unknown column.
        """
        if overwrite not in ("never", "replace"):
            raise ConfigError(f"overwrite is {overwrite!r}, expected 'never' or 'replace'")
        target = Path(os.path.abspath(checked_path(path, "the store", error=DataError)))
        # Before the arrays are looked at: reading a terabyte to say "exists already" would be unkind.
        refuse_existing(target, overwrite=overwrite)
        content = validate(
            columns,
            name=target.name if name is None else name,
            present=present,
            ids=ids,
            groups=groups,
            labels=labels,
            label_names=label_names,
            split=split,
            names=names,
            provenance=provenance,
            default_modalities=default_modalities,
            assets=assets,
        )
        # Not opened by its path: another writer may be replacing it just now.
        return cls(write_folder(content, target, overwrite=overwrite), FolderSource(target))

    @classmethod
    def from_arrays(
        cls,
        columns: Mapping[str, ArrayLike],
        *,
        present: Mapping[str, ArrayLike] | None = None,
        ids: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        label_names: Sequence[str] | None = None,
        split: ArrayLike | None = None,
        names: Sequence[str] | None = None,
        provenance: Mapping[str, Any] | None = None,
        default_modalities: Sequence[str] | None = None,
        assets: Mapping[str, bytes] | None = None,
        name: str = "arrays",
    ) -> "EmbeddingStore":
        """Make a store of arrays or tensors in memory, with the arguments, checks and fingerprint of `write`.

        The arrays are not copied; change them afterwards and `verify` will say so.
        """
        content = validate(
            columns,
            name=name,
            present=present,
            ids=ids,
            groups=groups,
            labels=labels,
            label_names=label_names,
            split=split,
            names=names,
            provenance=provenance,
            default_modalities=default_modalities,
            assets=assets,
        )
        description, files = keep_in_memory(content)
        return cls(description, MemorySource(files))

    def select(self, columns: Sequence[str]) -> "EmbeddingStore":
        """Return the same data with other default modalities, in the order given. ConfigError lists the columns."""
        chosen = chosen_columns(columns, self._description.columns)
        return EmbeddingStore(replace(self._description, default_modalities=chosen), self._source)

    # --- what it is ---------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Name of the data in reports."""
        return self._description.name

    @property
    def path(self) -> Path | None:
        """The folder, or None for arrays in memory."""
        return self._source.path

    @property
    def items(self) -> int:
        """N."""
        return self._description.items

    @property
    def modalities(self) -> tuple[str, ...]:
        """The default columns, or those of `select`."""
        return self._description.default_modalities

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns."""
        return tuple(self._description.columns)

    @property
    def fingerprint(self) -> str:
        """sha256 over checksum and provenance of every column, presence, ids, group, labels and split.

        Names, assets and the choice of modalities leave it alone: it says which numbers these are.
        """
        return self._fingerprint

    @property
    def provenance(self) -> dict[str, Any]:
        """What made the data, as given to `write`."""
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
        """Names that `asset` knows."""
        return tuple(self._description.assets)

    def width(self, name: str) -> int:
        """W of a column."""
        check_column(name, self._description.columns)
        return self._description.columns[name].width

    def checksum(self, name: str) -> str:
        """sha256 of a column's numbers, as the description has it."""
        check_column(name, self._description.columns)
        return self._description.columns[name].array.sha256

    # --- what it holds ------------------------------------------------------------------------------------------

    def array(self, name: str) -> NDArray[np.floating[Any]]:
        """Return the read-only (N, W) memory map of a column in its own float dtype; absent rows may hold NaN."""
        check_column(name, self._description.columns)
        column = self._description.columns[name]
        file = _layout.array_file(name)
        if file not in self._cache:
            self._cache[file] = self._source.array(file, column.array, column.dtype, (self.items, column.width))
        array_NW: NDArray[np.floating[Any]] = self._cache[file]
        return array_NW

    def present(self, name: str) -> NDArray[np.bool_]:
        """Return (N,) bool: which items have a row in the column."""
        check_column(name, self._description.columns)
        record = self._description.columns[name].present
        file = _layout.present_file(name)
        if file not in self._cache:
            if record is None:
                self._cache[file] = _frozen(np.ones(self.items, dtype=np.bool_))
            else:
                self._cache[file] = self._source.array(file, record, np.bool_, (self.items,))
        mask_N: NDArray[np.bool_] = self._cache[file]
        return mask_N

    @property
    def ids(self) -> NDArray[np.int64]:
        """(N,) items with equal ids are never each other's negatives."""
        return self._rows("ids")

    @property
    def groups(self) -> NDArray[np.int64]:
        """(N,) items of one group share a split, and the bootstrap draws whole groups."""
        return self._rows("groups")

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,) class numbers, -1 = unlabelled."""
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
        """N texts for people; "item 0", "item 1", ... if none were given."""
        if _layout.NAMES_FILE not in self._cache:
            record = self._description.names
            if record is None:
                names = tuple(f"item {row}" for row in range(self.items))
            else:
                text = self._source.content(_layout.NAMES_FILE, record)
                names = parse_names(text, self.items, self._where(_layout.NAMES_FILE))
            self._cache[_layout.NAMES_FILE] = names
        item_names: tuple[str, ...] = self._cache[_layout.NAMES_FILE]
        return item_names

    def asset(self, name: str) -> bytes:
        """Return the bytes of an asset; ConfigError lists the assets."""
        if not isinstance(name, str) or name not in self._description.assets:
            known = ", ".join(map(repr, self.assets)) or "none"
            raise ConfigError(f"unknown asset {name!r}; the store has {known}")
        return self._source.content(_layout.asset_file(name), self._description.assets[name])

    # --- is it what it says -------------------------------------------------------------------------------------

    def verify(self) -> None:
        """Read everything and compare the checksums. DataError names the file that was altered."""
        self._source.verify_description(self._description)
        for file, record in self._description.files().items():
            self._source.verify(file, record)

    def check_fingerprint(self, fingerprint: str) -> None:
        """Raise DataError if this is another revision of the data than the one with `fingerprint`."""
        if fingerprint != self._fingerprint:
            raise DataError(
                f"the data {self.name!r} has fingerprint {self._fingerprint}, expected {fingerprint}: it is another "
                f"revision than the one used before; use that one, or start anew with this one"
            )

    def __repr__(self) -> str:
        modalities = ", ".join(self.modalities)
        return f"EmbeddingStore({self.name!r}, {self.items} items, {modalities}, fingerprint {self._fingerprint[:12]})"

    def __getstate__(self) -> dict[str, Any]:
        # A mapped array would be pickled as a full copy into every worker process; it is mapped again there instead.
        return {**self.__dict__, "_cache": {}}

    def _rows(self, kind: str) -> NDArray[Any]:
        file = _layout.rows_file(kind)
        if file not in self._cache:
            record = self._description.rows.get(kind)
            if record is None:
                values_N = _frozen(default_rows(kind, self.items))
            else:
                values_N = self._source.array(file, record, _layout.ROW_DTYPES[kind], (self.items,))
                check_rows(kind, values_N, self.label_names, self._where(file))
            self._cache[file] = values_N
        rows_N: NDArray[Any] = self._cache[file]
        return rows_N

    def _where(self, file: str) -> str:
        return file if self.path is None else str(self.path / file)


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False
    return array
