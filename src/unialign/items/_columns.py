"""Build the columns of a table from records, which are checked here and nowhere else.

N items. Texts are `StringDType` arrays: 16 bytes an entry plus the text, against 50 and more for Python strings.
"""

import re
from array import array
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.dtypes import StringDType
from numpy.typing import NDArray

from unialign._checks import has_surrogate, one_line
from unialign.errors import DataError, UniAlignError
from unialign.items._cell_text import text_of, with_nan
from unialign.media import Cell, Kind

__all__ = ["SPLITS", "Columns", "build_columns", "check_key", "duplicate_id", "text_array"]

Array = NDArray[Any]

SPLITS = ("train", "val", "test")
# Entries of a record beside `id`, `cells` and `split`, which are texts or integers.
VALUES = ("group", "ids", "label")
_KNOWN = frozenset(("id", "cells", "split", *VALUES))
_CHUNK = 1 << 15
_MAX_ID_BYTES = 1024
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, eq=False)
class Columns:
    """Columns of N items.

    Attributes:
        keys: (N,) unique texts.
        cells: modality -> (N,) texts of cells, "" if absent; see `_cell_text`.
        values: "group", "ids" and "label" -> (N,) texts, "" if an item has none; a column without values is left out.
        split: (N,) int8 codes, -1 if an item has none; None if no item has one.
    """

    keys: Array
    cells: Mapping[str, Array]
    values: Mapping[str, Array]
    split: Array | None

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, rows_n: Array) -> "Columns":
        return Columns(
            self.keys[rows_n],
            {name: texts_N[rows_n] for name, texts_N in self.cells.items()},
            {name: texts_N[rows_n] for name, texts_N in self.values.items()},
            None if self.split is None else self.split[rows_n],
        )


def text_array(texts: Iterable[str]) -> Array:
    """Return texts as a `StringDType` array."""
    return np.array(list(texts), dtype=StringDType())


def build_columns(
    records: Iterable[Mapping[str, Any]], kinds: Mapping[str, Kind], where: Callable[[int], str]
) -> Columns:
    """Collect records in the form of the lines of `items.jsonl`.

    Args:
        where: function that returns the place of record i for messages.
    """
    keys, split = _Texts(where), array("b")
    cells = {name: _Texts(where) for name in kinds}
    values = {name: _Texts(where) for name in VALUES}
    seen: set[str] = set()
    rows = 0
    for rows, record in enumerate(records, 1):
        if not record.keys() <= _KNOWN:
            raise DataError(
                f"{where(rows - 1)}: unknown entry {min(record.keys() - _KNOWN)!r}; expected "
                f"{', '.join(sorted(_KNOWN))}"
            )
        key = record.get("id")
        if key in seen:
            raise duplicate_id(str(key), where(keys.find(str(key))), where(rows - 1))
        if problem := check_key(key):
            raise DataError(f"{where(rows - 1)}: {problem}")
        seen.add(key)  # type: ignore[arg-type]
        keys.append(key)  # type: ignore[arg-type]
        given = record.get("cells") or {}
        if not given.keys() <= kinds.keys():
            raise DataError(
                f"{where(rows - 1)}: unknown modality {min(given.keys() - kinds.keys())!r}; expected "
                f"{', '.join(map(repr, kinds))}"
            )
        for name, texts in cells.items():
            cell = given.get(name)
            texts.append("" if cell is None else _cell_text(cell, kinds[name], name, where, rows - 1))
        for name, texts in values.items():
            value = record.get(name)
            texts.append("" if value is None else _value_text(value, name, where, rows - 1))
        split.append(_split_code(record.get("split"), where, rows - 1))
    del seen
    split_N = np.frombuffer(split, np.int8) if split else np.empty(0, np.int8)
    return Columns(
        keys.array(),
        {name: texts.array() for name, texts in cells.items()},
        {name: texts_N for name, texts in values.items() if ((texts_N := texts.array()) != "").any()},
        split_N if (split_N >= 0).any() else None,
    )


def check_key(key: object) -> str:
    """Return what is wrong with an id, or ""."""
    if not isinstance(key, str) or not key:
        return f"the id is {key!r}, expected a string that is not empty"
    if _CONTROL.search(key) or has_surrogate(key):
        return f"the id {key!r} has control characters or unpaired surrogates; remove them"
    if len(key) > _MAX_ID_BYTES // 4 and len(key.encode()) > _MAX_ID_BYTES:
        return f"the id {key[:40]!r}... has {len(key.encode()):,} bytes, expected at most {_MAX_ID_BYTES:,}"
    return ""


def duplicate_id(key: str, first: str, second: str) -> DataError:
    return DataError(f"the id {key!r} occurs twice: {first} and {second}; ids must be unique, so rename one")


class _Texts:
    """Column of texts that grows."""

    def __init__(self, where: Callable[[int], str]) -> None:
        self._where, self._parts, self._pending = where, list[Array](), list[str]()

    def append(self, text: str) -> None:
        self._pending.append(text)
        if len(self._pending) == _CHUNK:
            self._flush()

    def find(self, text: str) -> int:
        """Return the row of a text that is in the column."""
        self._flush()
        start = 0
        for part in self._parts:
            found = np.flatnonzero(part == text)
            if len(found):
                return start + int(found[0])
            start += len(part)
        raise KeyError(text)

    def array(self) -> Array:
        self._flush()
        joined = np.concatenate(self._parts) if self._parts else np.empty(0, StringDType())
        self._parts.clear()
        joined.flags.writeable = False
        return joined

    def _flush(self) -> None:
        if not self._pending:
            return
        try:
            self._parts.append(np.array(self._pending, dtype=StringDType()))
        except UnicodeEncodeError:
            row = next(i for i, text in enumerate(self._pending) if has_surrogate(text))
            place = self._where(row + sum(map(len, self._parts)))
            raise DataError(
                f"{place}: a text has an unpaired surrogate, which is not Unicode text; write it again as UTF-8"
            ) from None
        self._pending.clear()


def _cell_text(cell: object, kind: Kind, name: str, where: Callable[[int], str], row: int) -> str:
    if isinstance(cell, Mapping):
        if len(cell) == 1:
            value = cell.get("value")
            if kind == "text" and isinstance(value, str):
                # Blank text is absent: in MSR-VTT, many subtitles are "".
                return "=" + value if value and not value.isspace() else ""
            path = cell.get("path")
            if isinstance(path, str) and path and path[0] != "/" and ".." not in path and "\0" not in path:
                return "/" + path
        try:
            return text_of(Cell.from_json(kind, with_nan(cell)).to_json())
        except (UniAlignError, TypeError, ValueError, KeyError) as error:
            problem = one_line(error)
    else:
        problem = f"it is {type(cell).__name__}, expected an object such as {{'path': 'a.png'}}"
    raise DataError(f"{where(row)}: the cell of {name!r} is not valid: {problem}")


def _value_text(value: object, name: str, where: Callable[[int], str], row: int) -> str:
    if name == "label" and isinstance(value, list | tuple):
        value = value[0] if value else ""
    if isinstance(value, str):
        return value
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return str(int(value))
    raise DataError(f"{where(row)}: {name} is {value!r}, expected a string or an integer")


def _split_code(value: object, where: Callable[[int], str], row: int) -> int:
    if value is None:
        return -1
    if value in SPLITS:
        return SPLITS.index(value)
    raise DataError(f"{where(row)}: split is {value!r}, expected one of {', '.join(map(repr, SPLITS))} or null")
