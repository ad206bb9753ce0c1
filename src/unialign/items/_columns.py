"""Build the columns of a table from records, which are checked only here.

Texts are `StringDType` arrays, which need less memory than Python strings.

Shapes: `N` items.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.dtypes import StringDType
from numpy.typing import NDArray

from unialign._checks import has_surrogate, one_line
from unialign.errors import DataError, UniAlignError
from unialign.items._cell_text import text_of, with_nan
from unialign.media import Cell, Kind

__all__ = ["SPLITS", "Columns", "build_columns", "check_key", "duplicate_id"]

Array = NDArray[Any]

SPLITS = ("train", "val", "test")
# Entries of a record other than `id`, `cells` and `split`, which are strings or integers.
VALUES = ("group", "ids", "label")
_KNOWN = frozenset(("id", "cells", "split", *VALUES))
_CHUNK = 1 << 15
_MAX_ID_BYTES = 1024
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


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


def build_columns(
    records: Iterable[Mapping[str, Any]], kinds: Mapping[str, Kind], where: Callable[[int], str]
) -> Columns:
    """Build columns from records in the form of the lines of `items.jsonl`. `where` returns the place of a record for
    messages.
    """
    keys, cells = list[Array](), {name: list[Array]() for name in kinds}
    values, splits = {name: list[Array]() for name in VALUES}, list[Array]()
    seen: set[str] = set()
    remaining, start = iter(records), 0
    # Check whole chunks at once, which takes half as long as checking record by record.
    while chunk := list(islice(remaining, _CHUNK)):
        _check_entries(chunk, "entry", _KNOWN, where, start)
        keys.append(_keys(chunk, seen, keys, where, start))
        given = [record.get("cells") or {} for record in chunk]
        _check_entries(given, "modality", kinds, where, start)
        for name, parts in cells.items():
            parts.append(
                _array(_cell_texts([cell.get(name) for cell in given], kinds[name], name, where, start), where, start)
            )
        for name, parts in values.items():
            parts.append(_array(_value_texts([record.get(name) for record in chunk], name, where, start), where, start))
        splits.append(_split_codes([record.get("split") for record in chunk], where, start))
        start += len(chunk)
    del seen
    split_N = np.concatenate([np.empty(0, np.int8), *splits])
    return Columns(
        _joined(keys),
        {name: _joined(parts) for name, parts in cells.items()},
        {name: texts_N for name, parts in values.items() if ((texts_N := _joined(parts)) != "").any()},
        split_N if (split_N >= 0).any() else None,
    )


def _check_entries(
    chunk: Sequence[Mapping[str, Any]], what: str, known: Iterable[str], where: Callable[[int], str], start: int
) -> None:
    expected = frozenset(known)
    if all(isinstance(record, dict) for record in chunk) and set().union(*chunk) <= expected:
        return
    for row, record in enumerate(chunk, start):
        if not isinstance(record, Mapping):
            raise DataError(f"{where(row)}: expected an object, got {record!r:.80}")
        if unknown := record.keys() - expected:
            names = ", ".join(map(repr, sorted(expected)))
            raise DataError(f"{where(row)}: unknown {what} {min(map(str, unknown))!r}; expected {names}")


def _keys(
    chunk: Sequence[Mapping[str, Any]],
    seen: set[str],
    earlier: Sequence[Array],
    where: Callable[[int], str],
    start: int,
) -> Array:
    keys: list[Any] = [record.get("id") for record in chunk]
    for row, key in enumerate(keys, start):
        if problem := check_key(key):
            raise DataError(f"{where(row)}: {problem}")
    size = len(seen)
    repeated = next((key for key in keys if key in seen), None)
    seen.update(keys)
    if len(seen) < size + len(keys):
        if repeated is None:
            repeated = next(key for key, uses in Counter(keys).items() if uses > 1)
        all_keys = [*_joined(earlier).tolist(), *keys]
        first = all_keys.index(repeated)
        raise duplicate_id(repeated, where(first), where(all_keys.index(repeated, first + 1)))
    return np.array(keys, dtype=StringDType())


def check_key(key: object) -> str:
    """Return the problem of an id, or ""."""
    if not isinstance(key, str) or not key:
        return f"the id is {key!r}, expected a string that is not empty"
    if _CONTROL.search(key):
        return f"the id {key!r} has control characters or unpaired surrogates; remove them"
    if len(key) > _MAX_ID_BYTES // 4 and len(key.encode()) > _MAX_ID_BYTES:
        return f"the id {key[:40]!r}... has {len(key.encode()):,} bytes, expected at most {_MAX_ID_BYTES:,}"
    return ""


def duplicate_id(key: str, first: str, second: str) -> DataError:
    return DataError(f"the id {key!r} occurs twice: {first} and {second}; ids must be unique, so rename one")


def _cell_texts(column: Sequence[Any], kind: Kind, name: str, where: Callable[[int], str], start: int) -> list[str]:
    texts = []
    is_text = kind == "text"
    for row, cell in enumerate(column, start):
        if cell is None:
            texts.append("")
            continue
        if isinstance(cell, dict) and len(cell) == 1:
            value, path = cell.get("value"), cell.get("path")
            if is_text and isinstance(value, str):
                # Blank text is absent: in MSR-VTT, many subtitles are "".
                texts.append("=" + value if value and not value.isspace() else "")
                continue
            if isinstance(path, str) and path and path[0] != "/" and "\0" not in path:
                texts.append("/" + path)
                continue
        try:
            texts.append(text_of(Cell.from_json(kind, with_nan(cell)).to_json()))
        except (UniAlignError, TypeError, ValueError, KeyError, AttributeError) as error:
            raise DataError(f"{where(row)}: the cell of {name!r} is not valid: {one_line(error)}") from None
    return texts


def _value_texts(column: Sequence[Any], name: str, where: Callable[[int], str], start: int) -> list[str]:
    texts = []
    for row, value in enumerate(column, start):
        if name == "label" and isinstance(value, list | tuple):
            value = value[0] if value else None
        if value is None or isinstance(value, str):
            texts.append(value or "")
        elif isinstance(value, int | np.integer) and not isinstance(value, bool):
            texts.append(str(int(value)))
        else:
            raise DataError(f"{where(row)}: {name} is {value!r:.80}, expected a string or an integer")
    return texts


def _split_codes(column: Sequence[Any], where: Callable[[int], str], start: int) -> Array:
    for row, value in enumerate(column, start):
        if value is not None and value not in SPLITS:
            known = ", ".join(map(repr, SPLITS))
            raise DataError(f"{where(row)}: split is {value!r:.80}, expected one of {known} or null")
    return np.array([-1 if value is None else SPLITS.index(value) for value in column], np.int8)


def _array(texts: list[str], where: Callable[[int], str], start: int) -> Array:
    try:
        return np.array(texts, dtype=StringDType())
    except UnicodeEncodeError:
        row = next(row for row, text in enumerate(texts, start) if has_surrogate(text))
        raise DataError(
            f"{where(row)}: a string has an unpaired surrogate, which is not Unicode text; write it again as UTF-8"
        ) from None


def _joined(parts: Sequence[Array]) -> Array:
    joined = np.concatenate(parts) if parts else np.empty(0, StringDType())
    joined.flags.writeable = False
    return joined
