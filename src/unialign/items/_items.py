"""`Items`: a table of N items with cells of several modalities, per-item values, and a fingerprint."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unialign._checks import check_choice, check_text
from unialign._html import html_table
from unialign.errors import ConfigError, DataError
from unialign.io import checked_path
from unialign.items._cell_text import CellSequence, cell_of, plain_text
from unialign.items._collect import collected
from unialign.items._columns import SPLITS, build_columns
from unialign.items._combine import concatenated, joined
from unialign.items._files import Overwrite, is_saved, load_table, save_table
from unialign.items._given import given_kinds, given_records, listed
from unialign.items._lines import lines_of
from unialign.items._table import Table, check_kinds
from unialign.items._values import codes_by_appearance, label_codes, rows_chosen, split_given, texts_given
from unialign.media import Cell, Kind
from unialign.readers import Folders, ItemOptions, Layout, Reader, read_items

__all__ = ["Items"]

Values = ArrayLike | Sequence[str | None] | Sequence[int | None]
Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


class Items:
    """Read-only table of N items, each of which has at most one cell per modality.

    A cell is a value (a text or a vector) or a reference to media in a file. Create a table with `open` (folders,
    manifests, archives), `from_records` (Python objects) or `load` (a saved table). No media are read.
    """

    def __init__(self, table: Table) -> None:
        """Private; use `Items.open`, `from_records` or `load`."""
        self._table = table
        self._cache: dict[str, Any] = {}

    @classmethod
    def open(
        cls,
        source: Source,
        *,
        reader: str | Reader | None = None,
        rules: Mapping[str, str | Sequence[str]] | None = None,
        kinds: Mapping[str, Kind] | None = None,
        root: str | os.PathLike[str] | None = None,
        layout: Layout = "auto",
        id: str | None = None,
        group: str | None = None,
        ids: str | None = None,
        label: str | None = None,
        split: str | None = None,
        name: str | None = None,
        license: str | None = None,
        allow_absolute: bool = False,
        allow_truncated: bool = False,
    ) -> "Items":
        """List the items of a folder, a manifest, an archive or an array file, without reading media.

        Args:
            source: a path, a pattern such as `shards/{000..099}.tar` or `data/*.parquet`, or a list of these. The
                folder of a saved table is loaded.
            reader: name of a reader of items (see `registry.names("readers")`). Default: the reader that recognizes the
                content.
            rules: modality -> location of its cells, one or several in order of priority: suffixes of files (`".png"`,
                `"_fr.ogg"`) or subfolders (`"images/"`) of a folder, extensions in tar archives (`"jpg"`), columns of a
                table, or arrays of an array file. Default: derived from the source, if the result is unambiguous.
            kinds: modality -> "image", "text", "audio", "video" or "array". Default: by suffix, content or name.
            root: folder that the paths in a manifest are relative to. Default: the folder of the manifest.
            layout: layout of a folder: "suffixes" (files of an item have one stem), "folders" (a subfolder per
                modality) or "classes" (a subfolder per class). Default: "auto", derived from the rules or the files.
            id, group, ids, label, split: columns of a table with these values. Default: columns with these names.
            name: name of the table. Default: the name of the source.
            license: SPDX identifier of the data, if the source does not state it. Default: "unknown".
            allow_absolute: whether a manifest may refer to files outside of `root`.
            allow_truncated: whether to use the complete members of a truncated archive.

        Raises:
            DataError: the source is missing or damaged, no reader or rule fits, an id occurs twice, or a row of a
                manifest is invalid, such as a path outside of `root`.
            ConfigError: an option is invalid, or the source is ambiguous.
        """
        values = {"id": id, "group": group, "ids": ids, "label": label, "split": split}
        if (
            isinstance(source, str | os.PathLike)
            and reader is None
            and is_saved(checked_path(source, "the source", error=DataError))
        ):
            if rules or kinds or any(values.values()):
                raise ConfigError(
                    f"{source} is a saved table, whose modalities and values are fixed; omit rules and columns"
                )
            return cls(_renamed(load_table(source, roots=None if root is None else [root]), name, license))
        options = ItemOptions.checked(
            rules=rules,
            kinds=kinds,
            root=root,
            layout=layout,
            values=values,
            allow_absolute=allow_absolute,
            allow_truncated=allow_truncated,
        )
        table = collected(read_items(source, options, reader=reader), ruled=options.rules)
        return cls(_renamed(table, name, license))

    @classmethod
    def from_records(
        cls,
        records: Iterable[Mapping[str, Any]] | Any,
        *,
        kinds: Mapping[str, Kind] | None = None,
        root: str | os.PathLike[str] | None = None,
        name: str = "records",
        license: str = "unknown",
        allow_absolute: bool = False,
    ) -> "Items":
        """Create a table from Python objects.

        Examples:
            >>> records = [{"id": "cat", "image": "a.png", "text": "a cat"}, {"id": "dog", "image": None}]
            >>> Items.from_records(records).present("image").tolist()
            [True, False]

        Args:
            records: mappings, a `pandas.DataFrame` or a `pyarrow.Table`. The entries `id`, `group`, `ids`, `label` and
                `split` are values of the item; every other entry is a modality: a path, a text, a vector, a `Cell`, a
                mapping such as `{"path": "a.mp4", "span": [0, 2]}`, or None if absent. The id of a record without `id`
                is its number.
            kinds: modality -> kind of media. Default: by the name of the modality, else by its first value.
            root: folder that paths are relative to. Default: the current folder.
            name: name of the table in reports.
            license: SPDX identifier of the data.
            allow_absolute: whether records may refer to files outside of `root`.

        Raises:
            DataError: an id occurs twice, a value has the wrong type, or a path leaves `root`.
            ConfigError: `records` is not a sequence of mappings, or a kind is unknown.
        """
        found = listed(records)
        own = given_kinds(found, kinds)
        check_kinds(own)
        folders = Folders(Path.cwd() if root is None else Path(root), allow_absolute=allow_absolute)
        columns = build_columns(given_records(found, own, folders), own, lambda row: f"record {row}")
        check_text("name", name)
        return cls(Table(name, own, tuple(folders.roots), license, columns))

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, roots: Sequence[str | os.PathLike[str]] | None = None) -> "Items":
        """Load a table that was written by `save`.

        Args:
            path: folder with `items.json` and `items.jsonl`.
            roots: folders of the media, if they were moved; one for each entry of `Items.roots`.

        Raises:
            DataError: a file is missing, altered or malformed.
        """
        return cls(load_table(path, roots=roots))

    def save(self, path: str | os.PathLike[str], *, overwrite: Overwrite = "never") -> "Items":
        """Write the table into a folder atomically, and return it.

        Args:
            path: the folder to create. A table in or next to the folder of its media refers to them by relative paths.
            overwrite: "replace" replaces an existing table, but never other files at `path`.

        Raises:
            DataError: `path` exists, or a file system error occurs.
        """
        _, sha256 = save_table(self._table, path, overwrite=overwrite)
        return Items(replace(self._table, sealed=sha256))

    @classmethod
    def concat(cls, tables: Sequence["Items"], name: str | None = None) -> "Items":
        """Return the items of several tables, one after another, with the modalities of all.

        Args:
            name: name of the table. Default: the names of the tables, joined by `+`.

        Raises:
            DataError: two items have the same id, or a modality has different kinds.
        """
        return cls(_renamed(concatenated([items._table for items in tables]), name, None))

    def join(self, other: "Items", *, how: Literal["outer", "inner"] = "outer") -> "Items":
        """Return the items of two tables, matched by id, with the modalities of both.

        Args:
            other: a table with other modalities.
            how: "outer" keeps all items, those of this table first; "inner" keeps the items that are in both tables.

        Raises:
            ConfigError: both tables have a modality of the same name.
            DataError: an item has different groups, ids, labels or splits in the two tables.
        """
        check_choice("how", how, ("outer", "inner"))
        return Items(joined(self._table, other._table, how))

    def select(self, modalities: Sequence[str]) -> "Items":
        """Return the same items with these modalities, in this order."""
        if isinstance(modalities, str) or not modalities or len(set(modalities)) < len(modalities):
            raise ConfigError(f"modalities must be a list of distinct names, got {modalities!r}")
        for name in modalities:
            self._check_modality(name)
        cells = {name: self._table.columns.cells[name] for name in modalities}
        kinds = {name: self._table.kinds[name] for name in modalities}
        return Items(replace(self._table, kinds=kinds, columns=replace(self._table.columns, cells=cells), sealed=None))

    def rows_of(self, rows: ArrayLike) -> "Items":
        """Return the items of an (N,) bool mask, or those with these row numbers, in this order."""
        taken = self._table.columns.take(rows_chosen(rows, len(self)))
        return Items(replace(self._table, columns=taken, sealed=None))

    def with_split(self, split: Values | None) -> "Items":
        """Return a copy with another split: (N,) names or codes, with None or -1 for items without one."""
        split_N = None if split is None else split_given(split, len(self))
        return self._with(split=split_N)

    def with_groups(self, groups: Values | None) -> "Items":
        """Return a copy with other groups: (N,) strings or integers; an item with None or "" is in a separate group."""
        return self._with_values("group", groups)

    def with_ids(self, ids: Values | None) -> "Items":
        """Return a copy with other ids: (N,) strings or integers; an item with None or "" is different from all
        others.
        """
        return self._with_values("ids", ids)

    def with_labels(self, labels: Values | None) -> "Items":
        """Return a copy with other labels: (N,) class names; None or "" is unlabeled."""
        return self._with_values("label", labels)

    def __len__(self) -> int:
        """Return the number N of items."""
        return len(self._table.columns)

    @property
    def name(self) -> str:
        """Name of the table in reports."""
        return self._table.name

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities."""
        return tuple(self._table.kinds)

    @property
    def kinds(self) -> dict[str, Kind]:
        """Kind of media of each modality: "image", "text", "audio", "video" or "array"."""
        return dict(self._table.kinds)

    @property
    def roots(self) -> tuple[Path, ...]:
        """Folders that the paths of cells are relative to; `Cell.root` is an index."""
        return self._table.roots

    @property
    def license(self) -> str:
        """SPDX expression of the license of the data, or "unknown"."""
        return self._table.license

    @property
    def notes(self) -> tuple[str, ...]:
        """Messages about how the source was read, such as files that no rule matches; empty for a saved table."""
        return self._table.notes

    @property
    def fingerprint(self) -> str:
        """sha256 of modalities, kinds and lines (with groups, ids, labels and split), but not of the media."""
        return self._table.fingerprint

    @property
    def keys(self) -> NDArray[Any]:
        """(N,) unique names of the items; a `StringDType` array."""
        return self._table.columns.keys

    @property
    def ids(self) -> NDArray[np.int64]:
        """(N,) codes; items with equal codes have the same identity and are never negatives of each other."""
        return self._codes("ids")

    @property
    def text_ids(self) -> NDArray[Any] | None:
        """(N,) texts that are equal where `ids` are equal; None if no item has an `ids` value."""
        ids_N = self._table.columns.values.get("ids")
        if ids_N is None:
            return None
        # The key of an item without an id is used as the id, which differs from all others, as in a mixture with shared
        # ids.
        is_missing_N = ids_N == ""
        given = set(ids_N[~is_missing_N].tolist())
        named = [key if key not in given else f"{key} (item)" for key in self.keys[is_missing_N].tolist()]
        texts_N = np.array(ids_N, dtype=ids_N.dtype)
        texts_N[is_missing_N] = named
        return texts_N

    @property
    def groups(self) -> NDArray[np.int64]:
        """(N,) codes; items of a group share a split, and the bootstrap resamples whole groups."""
        return self._codes("group")

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,) class numbers, -1 = unlabeled."""
        labels_N: NDArray[np.int64] = self._labels()[0]
        return labels_N

    @property
    def label_names(self) -> tuple[str, ...]:
        """Name of each class, sorted."""
        names: tuple[str, ...] = self._labels()[1]
        return names

    @property
    def split(self) -> NDArray[np.int8]:
        """(N,) codes: 0 = train, 1 = val, 2 = test, -1 = none."""
        split_N = self._table.columns.split
        return np.full(len(self), -1, np.int8) if split_N is None else split_N

    @property
    def has_groups(self) -> bool:
        """Whether any item has a group; otherwise, every item is a separate group."""
        return "group" in self._table.columns.values

    @property
    def has_ids(self) -> bool:
        """Whether any item has an `ids` value; otherwise, all items are different."""
        return "ids" in self._table.columns.values

    @property
    def has_split(self) -> bool:
        """Whether any item has a split."""
        return self._table.columns.split is not None

    def present(self, modality: str) -> NDArray[np.bool_]:
        """Return the (N,) bool mask of the items that have a cell in the modality."""
        self._check_modality(modality)
        present_N: NDArray[np.bool_] = self._table.columns.cells[modality] != ""
        return present_N

    def cell(self, row: int, modality: str) -> Cell | None:
        """Return the cell of an item, or None if it is absent."""
        self._check_modality(modality)
        text = str(self._table.columns.cells[modality][row])
        return cell_of(text, self._table.kinds[modality]) if text else None

    def column(self, modality: str) -> tuple[Sequence[Cell], NDArray[np.int64]]:
        """Return the distinct cells of a modality, and the index of the cell of each item.

        Returns:
            The distinct cells in order of first appearance, as objects that are created on access, and an (N,) index
            into them, -1 if absent.
        """
        self._check_modality(modality)
        texts_N = self._table.columns.cells[modality]
        code_N = np.full(len(self), -1, np.int64)
        present_N = texts_N != ""
        code_N[present_N] = codes_by_appearance(texts_N[present_N], int(present_N.sum()))
        _, first_n = np.unique(code_N[present_N], return_index=True)
        return CellSequence(texts_N[present_N][first_n], self._table.kinds[modality]), code_N

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield the items as JSON objects, in the form of the lines of `items.jsonl`."""
        columns = self._table.columns
        for row in range(len(self)):
            cells = {name: str(texts_N[row]) for name, texts_N in columns.cells.items()}
            record: dict[str, Any] = {
                "id": str(columns.keys[row]),
                "cells": {name: plain_text(text) for name, text in cells.items() if text},
            }
            record |= {name: str(texts_N[row]) for name, texts_N in columns.values.items() if texts_N[row]}
            if columns.split is not None and columns.split[row] >= 0:
                record["split"] = SPLITS[columns.split[row]]
            yield record

    def lines(self) -> Iterator[bytes]:
        """Yield the content of `items.jsonl` in parts of several lines."""
        return lines_of(self._table.columns)

    def __repr__(self) -> str:
        return f"Items({self.name!r}, {len(self)} items, {', '.join(self.modalities)})"

    def _repr_html_(self) -> str:
        rows = [(name, kind, f"{int(self.present(name).sum()):,}") for name, kind in self._table.kinds.items()]
        return html_table(rows, head=("modality", "kind", "present"), caption=f"Items {self.name}: {len(self):,} items")

    def _check_modality(self, name: str) -> None:
        check_choice("modality", name, self._table.kinds)

    def _codes(self, name: str) -> NDArray[np.int64]:
        if name not in self._cache:
            code_N = codes_by_appearance(self._table.columns.values.get(name), len(self))
            code_N.flags.writeable = False
            self._cache[name] = code_N
        codes_N: NDArray[np.int64] = self._cache[name]
        return codes_N

    def _labels(self) -> Any:
        if "label" not in self._cache:
            self._cache["label"] = label_codes(self._table.columns.values.get("label"), len(self))
        return self._cache["label"]

    def _with(self, **columns: Any) -> "Items":
        return Items(replace(self._table, columns=replace(self._table.columns, **columns), sealed=None))

    def _with_values(self, name: str, values: Values | None) -> "Items":
        kept = {key: texts_N for key, texts_N in self._table.columns.values.items() if key != name}
        if values is not None:
            texts_N = texts_given(values, name, len(self))
            kept |= {name: texts_N} if (texts_N != "").any() else {}
        return self._with(values=kept)


def _renamed(table: Table, name: str | None, license: str | None) -> Table:
    table = table if name is None else replace(table, name=name)
    return table if license is None else replace(table, license=license)
