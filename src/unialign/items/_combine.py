"""Combine tables: items one after another, or modalities of the same items.

Shapes: `N` items.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.dtypes import StringDType
from numpy.typing import NDArray

from unialign.errors import ConfigError, DataError
from unialign.items._cell_text import with_roots
from unialign.items._columns import SPLITS, Columns, duplicate_id
from unialign.items._table import Table, merged_kinds, merged_license, merged_roots

__all__ = ["concatenated", "joined"]

Array = NDArray[Any]


def concatenated(tables: Sequence[Table]) -> Table:
    if not tables:
        raise ConfigError("no table is given; pass at least one")
    kinds = merged_kinds(tables)
    roots, numbers = merged_roots(tables)
    _check_distinct(tables)
    columns = [_moved(table.columns, own) for table, own in zip(tables, numbers, strict=True)]
    sizes = [len(part) for part in columns]
    names = [name for name in ("group", "ids", "label") if any(name in part.values for part in columns)]
    split_N = None
    if any(part.split is not None for part in columns):
        split_N = np.concatenate([_split(part) for part in columns])
    whole = Columns(
        np.concatenate([part.keys for part in columns]),
        {name: _stacked([part.cells.get(name) for part in columns], sizes) for name in kinds},
        {name: _stacked([part.values.get(name) for part in columns], sizes) for name in names},
        split_N,
    )
    name = "+".join(dict.fromkeys(table.name for table in tables))
    return Table(name, kinds, roots, merged_license(tables), whole)


def joined(first: Table, second: Table, how: Literal["inner", "outer"]) -> Table:
    if both := [name for name in first.kinds if name in second.kinds]:
        raise ConfigError(
            f"both tables have the modality {both[0]!r}; leave it out of one of them with select([...]), or use concat "
            "for tables of different items"
        )
    place = {key: row for row, key in enumerate(first.columns.keys.tolist())}
    at_n = np.array([place.get(key, -1) for key in second.columns.keys.tolist()], np.int64)
    own_N = np.full(len(first.columns), -1, np.int64)
    own_N[at_n[at_n >= 0]] = np.flatnonzero(at_n >= 0)
    # Row of each item in the first and in the second table; -1 if the table lacks the item.
    if how == "inner":
        first_N = np.flatnonzero(own_N >= 0)
        second_N = own_N[first_N]
    else:
        added_n = np.flatnonzero(at_n < 0)
        first_N = np.concatenate([np.arange(len(own_N)), np.full(len(added_n), -1)])
        second_N = np.concatenate([own_N, added_n])
    roots, numbers = merged_roots((first, second))
    sides = [(_moved(first.columns, numbers[0]), first_N), (_moved(second.columns, numbers[1]), second_N)]
    keys = _taken(sides[0][0].keys, first_N)
    keys[first_N < 0] = second.columns.keys[second_N[first_N < 0]]
    cells = {name: _taken(texts, rows) for side, rows in sides for name, texts in side.cells.items()}
    values = {
        name: found
        for name in ("group", "ids", "label")
        if (found := _agreed([_taken_value(side, name, rows) for side, rows in sides], name, keys, (first, second)))
        is not None
    }
    split_N = _agreed([_taken_value(side, "split", rows) for side, rows in sides], "split", keys, (first, second))
    name = "+".join(dict.fromkeys((first.name, second.name)))
    columns = Columns(keys, cells, values, None if split_N is None else _codes(split_N))
    return Table(name, {**first.kinds, **second.kinds}, roots, merged_license((first, second)), columns)


def _check_distinct(tables: Sequence[Table]) -> None:
    seen: dict[str, tuple[int, int]] = {}
    for number, table in enumerate(tables):
        for row, key in enumerate(table.columns.keys.tolist()):
            if key in seen:
                other, first = seen[key]
                places = [f"item {at} of table {i} ({tables[i].name!r})" for i, at in ((other, first), (number, row))]
                raise duplicate_id(key, *places)
            seen[key] = (number, row)


def _moved(columns: Columns, numbers: Sequence[int]) -> Columns:
    """Renumber the roots in the references of all cells."""
    if all(old == new for old, new in enumerate(numbers)):
        return columns
    cells: Mapping[str, Array] = {
        name: np.array([text and with_roots(text, numbers) for text in texts_N.tolist()], dtype=StringDType())
        for name, texts_N in columns.cells.items()
    }
    return Columns(columns.keys, cells, columns.values, columns.split)


def _stacked(parts: Sequence[Array | None], sizes: Sequence[int]) -> Array:
    empty = StringDType()
    return np.concatenate(
        [np.zeros(size, empty) if part is None else part for part, size in zip(parts, sizes, strict=True)]
    )


def _split(columns: Columns) -> Array:
    return np.full(len(columns), -1, np.int8) if columns.split is None else columns.split


def _taken(texts_N: Array, rows_N: Array) -> Array:
    """Return the texts at these rows; "" for row -1."""
    taken = np.zeros(len(rows_N), StringDType())
    taken[rows_N >= 0] = texts_N[rows_N[rows_N >= 0]]
    return taken


def _taken_value(columns: Columns, name: str, rows_N: Array) -> Array | None:
    if name == "split":
        if columns.split is None:
            return None
        return _taken(np.array([*SPLITS, ""], dtype=StringDType())[columns.split], rows_N)
    return _taken(columns.values[name], rows_N) if name in columns.values else None


def _agreed(parts: Sequence[Array | None], name: str, keys: Array, tables: tuple[Table, Table]) -> Array | None:
    """Fill missing values of the first table from the second; raise DataError if the tables contradict each other."""
    one, two = parts
    if one is None or two is None:
        return two if one is None else one
    differ_N = (one != "") & (two != "") & (one != two)
    if differ_N.any():
        row = int(differ_N.argmax())
        raise DataError(
            f"{name} of the item {str(keys[row])!r} is {str(one[row])!r} in {tables[0].name!r} and "
            f"{str(two[row])!r} in {tables[1].name!r}; the tables must agree, so correct one of them"
        )
    return np.where(one == "", two, one)


def _codes(split_N: Array) -> Array:
    codes = {"": -1, **{name: code for code, name in enumerate(SPLITS)}}
    return np.array([codes[text] for text in split_N.tolist()], np.int8)
