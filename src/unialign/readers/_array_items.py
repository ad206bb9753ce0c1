"""List the items of array files: row i of each matrix is the cell of item i.

Shapes: `N` items.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign._checks import suggestion
from unialign.errors import ConfigError, DataError
from unialign.media import Kind
from unialign.readers._entry import EmbeddingFile, repeated
from unialign.readers._item_records import Folders, ItemOptions, ItemRecords
from unialign.readers._keys import is_item_key, mask_prefix
from unialign.readers._splits import SPLIT_NAMES

__all__ = ["ArrayFile", "MatrixColumn", "array_file", "array_items"]

Array = NDArray[Any]

# Generic keys, which are replaced by the name of the file.
_GENERIC = frozenset({"", "arr_0", "array", "data", "emb", "embedding", "embeddings", "features", "x", "X"})
# Default keys of per-item values.
_VALUE_KEYS = {
    "label": ("labels", "label"),
    "group": ("groups", "group"),
    "split": ("split",),
    "ids": ("ids",),
    "id": ("names", "id", "key"),
}
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class MatrixColumn:
    """A matrix of a file.

    Attributes:
        name: modality if no rules are given.
        key: key of the array in the file; None if the file has only one array.
        items: number N of items.
        row_N: (N,) rows of the items, -1 if absent; None if item i is row i.
        aliases: other names by which rules may refer to the matrix.
        present: function that returns the (N,) presence mask; None if all items are present.
        skipped: reason why the matrix cannot be used, or "".
        is_default: whether the matrix is a modality if no rules are given.
    """

    name: str
    key: str | None
    items: int
    row_N: Array | None = None
    aliases: tuple[str, ...] = ()
    present: Callable[[], Array] | None = None
    skipped: str = ""
    is_default: bool = True


@dataclass(frozen=True)
class ArrayFile:
    """Matrices and per-item values of a file; `values` are functions that return (N,) arrays."""

    path: Path
    columns: Sequence[MatrixColumn]
    values: Mapping[str, Callable[[], Array]] = field(default_factory=dict)


def array_file(path: Path, file: EmbeddingFile) -> ArrayFile:
    masks = {key[len(prefix) :]: entry for key, entry in file.entries.items() if (prefix := mask_prefix(key))}
    columns, values = [], {}
    for key, entry in file.entries.items():
        if mask_prefix(key) is not None:
            continue
        if is_item_key(key, entry) or (len(entry.shape) == 1 and entry.kind in ("i", "u", "U", "S")):
            values[key] = entry.load
        elif entry.skipped or (len(entry.shape) == 2 and entry.is_floating):
            base = key.rpartition("/")[2]
            mask = masks.get(key)
            columns.append(
                MatrixColumn(
                    _UNSAFE.sub("_", file.stem if base in _GENERIC else base),
                    key or None,
                    entry.shape[0] if entry.shape else 0,
                    aliases=(base,),
                    present=None if mask is None else mask.load,
                    skipped=entry.skipped,
                    is_default=entry.is_default and not entry.skipped,
                )
            )
    return ArrayFile(path, columns, values)


def array_items(files: Sequence[ArrayFile], options: ItemOptions) -> ItemRecords:
    """List the items of array files; several files must have the same items in the same order."""
    chosen = _chosen(files, options)
    first = next(iter(chosen.values()))
    for name, (file, column) in chosen.items():
        if column.items != first[1].items:
            raise DataError(
                f"{name!r} in {file.path} has {column.items:,} rows, but {next(iter(chosen))!r} in {first[0].path} has "
                f"{first[1].items:,}; each row must be an item of all arrays"
            )
    folders = Folders(options.root or files[0].path.absolute().parent, allow_absolute=options.allow_absolute)
    kinds: dict[str, Kind] = dict.fromkeys(chosen, "array")
    path = files[0].path.absolute()
    return ItemRecords(
        name=path.name.split(".")[0] if len(files) == 1 else path.parent.name,
        kinds=kinds,
        records=_records(files, chosen, first[1].items, options, folders),
        where=lambda row: f"{first[0].path}, row {row}",
        roots=folders.roots,
        notes=_notes(files, chosen),
    )


def _chosen(files: Sequence[ArrayFile], options: ItemOptions) -> dict[str, tuple[ArrayFile, MatrixColumn]]:
    every = [(file, column) for file in files for column in file.columns]
    # The key of an array has precedence over shorter names.
    known = {alias: pair for pair in reversed(every) for alias in (*pair[1].aliases, pair[1].name)}
    known |= {pair[1].key: pair for pair in reversed(every) if pair[1].key is not None}
    for name, kind in options.kinds.items():
        if kind != "array":
            raise ConfigError(f"{name!r} is an array in {files[0].path}, so its kind cannot be {kind!r}")
    if options.rules:
        chosen = {}
        for name, (place, *more) in options.rules.items():
            if more:
                raise ConfigError(f"the rule of {name!r} must name one array, got {', '.join((place, *more))}")
            if place not in known:
                raise DataError(
                    f"{files[0].path} has no matrix {place!r}; it has {_listed(files)}{suggestion(place, known)}"
                )
            chosen[name] = known[place]
        for name, (file, column) in chosen.items():
            if column.skipped:
                raise DataError(f"{file.path}: {name!r} cannot be read: {column.key} is {column.skipped}")
        return chosen
    default = [(file, column) for file, column in every if column.is_default]
    if not default:
        skipped = next((f"; {c.key} is {c.skipped}" for _, c in every if c.skipped), "")
        raise DataError(
            f"{files[0].path} has no matrix of floats that is read by default; it has {_listed(files)}{skipped}"
        )
    for name in repeated(column.name for _, column in default):
        raise ConfigError(f"several matrices are called {name!r}; rename them with rules, such as --rule {name}=KEY")
    return {column.name: (file, column) for file, column in default}


def _records(
    files: Sequence[ArrayFile],
    chosen: Mapping[str, tuple[ArrayFile, MatrixColumn]],
    items: int,
    options: ItemOptions,
    folders: Folders,
) -> Iterator[dict[str, Any]]:
    values = _values(files, items, options)
    cells: dict[str, tuple[dict[str, Any], list[int]]] = {}
    for name, (file, column) in chosen.items():
        row_N = np.arange(items) if column.row_N is None else column.row_N
        if column.present is not None:
            present_N = np.asarray(column.present())
            if present_N.shape != (items,):
                raise DataError(f"{file.path}: the mask of {name!r} has shape {present_N.shape}, expected ({items},)")
            row_N = np.where(present_N, row_N, -1)
        place = _place(file.path, folders) | ({} if column.key is None else {"key": column.key})
        cells[name] = (place, row_N.tolist())
    for i in range(items):
        record: dict[str, Any] = {
            "id": str(i),
            "cells": {name: {**place, "row": rows[i]} for name, (place, rows) in cells.items() if rows[i] >= 0},
        }
        for name, own in values.items():
            if own[i] is not None:
                record[name] = own[i]
        yield record


def _values(files: Sequence[ArrayFile], items: int, options: ItemOptions) -> dict[str, list[Any]]:
    known = {key: (file, load) for file in reversed(files) for key, load in file.values.items()}
    found: dict[str, list[Any]] = {}
    for name, usual in _VALUE_KEYS.items():
        given = options.values.get(name)
        keys = usual if given is None else (given, f"obs/{given}")
        key = next((key for key in keys if key in known), None)
        if key is not None:
            file, load = known[key]
            found[name] = _texts(load(), name, key, file.path, items)
        elif given is not None:
            raise DataError(f"{files[0].path} has no values {given!r}; it has {', '.join(known) or 'none'}")
    if "id" in options.values:
        return found
    # Use unique ids as names; ids that repeat are not used.
    if "id" in found and not _are_unique(found["id"]):
        del found["id"]
    if "id" not in found and "ids" in found and _are_unique(found["ids"]):
        found["id"] = found.pop("ids")
    return found


def _are_unique(texts: Sequence[Any]) -> bool:
    return None not in texts and len(set(texts)) == len(texts)


def _texts(values_N: Array, name: str, key: str, path: Path, items: int) -> list[Any]:
    if values_N.shape != (items,):
        raise DataError(f"{path}: {key!r} has shape {values_N.shape}, expected ({items},)")
    if values_N.dtype.kind not in "iuUSO":
        raise DataError(f"{path}: {key!r} has dtype {values_N.dtype}; {name} needs integers or strings")
    texts = []
    for value in values_N.tolist():
        value = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        is_absent = value == "" or (name in ("label", "split") and isinstance(value, int) and value < 0)
        texts.append(None if is_absent else str(value))
    return [_split(text, key, path) for text in texts] if name == "split" else texts


def _split(text: str | None, key: str, path: Path) -> str | None:
    if text is None:
        return None
    codes = {"0": "train", "1": "val", "2": "test"}
    split = codes.get(text) or SPLIT_NAMES.get(text.lower())
    if split is None:
        raise DataError(f"{path}: {key!r} holds {text!r}, expected train, val, test or 0, 1, 2")
    return split


def _place(path: Path, folders: Folders) -> dict[str, Any]:
    absolute = Path(os.path.abspath(path))
    if absolute.is_relative_to(folders.roots[0]):
        return {"array": absolute.relative_to(folders.roots[0]).as_posix()}
    return {"array": absolute.name, "root": folders.add(absolute.parent)}


def _notes(files: Sequence[ArrayFile], chosen: Mapping[str, tuple[ArrayFile, MatrixColumn]]) -> list[str]:
    used = [column for _, column in chosen.values()]
    left = [
        f"{column.key or column.name}{f' ({column.skipped})' if column.skipped else ''}"
        for file in files
        for column in file.columns
        if column not in used
    ]
    return [f"matrices that are not used: {', '.join(left[:12])}{', ...' if len(left) > 12 else ''}"] if left else []


def _listed(files: Sequence[ArrayFile]) -> str:
    names = [column.key or column.name for file in files for column in file.columns if not column.skipped]
    return ", ".join(names[:12]) or "none"
