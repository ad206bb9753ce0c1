"""Convert Python records, data frames and Arrow tables to the lines of `items.jsonl`."""

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from unialign._checks import suggestion
from unialign.errors import ConfigError, DataError
from unialign.media import KINDS, Cell, Kind
from unialign.readers import Folders, kind_of_name

__all__ = ["given_kinds", "given_records", "listed"]

# Entries of a record that are values of the item; all others are modalities.
_VALUES = ("id", "group", "ids", "label", "split")


def listed(records: object) -> list[Mapping[str, Any]]:
    if hasattr(records, "to_pylist"):
        records = records.to_pylist()
    elif hasattr(records, "to_dict"):
        records = records.to_dict("records")
    found: list[Any] = list(records) if isinstance(records, Iterable) and not isinstance(records, str) else [records]
    for row, record in enumerate(found):
        if not isinstance(record, Mapping):
            raise ConfigError(
                "records must be mappings such as {'id': 'cat', 'image': 'a.png'}, a pandas.DataFrame or a "
                f"pyarrow.Table; record {row} is of type {type(record).__name__}"
            )
    return found


def given_kinds(records: Sequence[Mapping[str, Any]], kinds: Mapping[str, Kind] | None) -> dict[str, Kind]:
    """Determine the kind of each modality by the argument, else by the name, else by the first value."""
    first: dict[str, Any] = {}
    for record in records:
        for name, value in _cells(record).items():
            if first.get(name) is None:
                first[name] = None if _is_absent(value) else value
    for name in kinds or {}:
        if name not in first:
            raise ConfigError(f"kinds contains {name!r}, which does not occur in any record{suggestion(name, first)}")
    return {name: (kinds or {}).get(name) or _kind(name, value) for name, value in first.items()}


def given_records(
    records: Sequence[Mapping[str, Any]], kinds: Mapping[str, Kind], folders: Folders
) -> Iterator[dict[str, Any]]:
    """Convert records to lines; the id of a record without `id` is its number."""
    for row, record in enumerate(records):
        values = {name: _plain(record[name]) for name in _VALUES if name in record and not _is_absent(record[name])}
        cells = {
            name: _cell(value, kinds[name], folders, row, name)
            for name, value in _cells(record).items()
            if not _is_absent(value)
        }
        yield {"id": str(values.pop("id", row)), "cells": cells, **values}


def _cells(record: Mapping[str, Any]) -> Mapping[str, Any]:
    cells = record.get("cells")
    if isinstance(cells, Mapping):
        return cells
    return {str(name): value for name, value in record.items() if name not in _VALUES}


def _is_absent(value: Any) -> bool:
    # Data frames mark absent values by NaN and NA.
    return value is None or (isinstance(value, float) and math.isnan(value)) or type(value).__name__ == "NAType"


def _kind(name: str, value: Any) -> Kind:
    if name in KINDS:
        return name
    if isinstance(value, Cell):
        value = value.to_json()
    if isinstance(value, Mapping):
        if "array" in value or isinstance(value.get("value"), list | tuple):
            return "array"
        value = value.get("value") or value.get("name") or value.get("path") or ""
    if isinstance(value, str):
        return kind_of_name(value) or "text"
    if isinstance(value, os.PathLike):
        return kind_of_name(os.fspath(value)) or "text"
    return "text" if value is None else "array"


def _cell(value: Any, kind: Kind, folders: Folders, row: int, name: str) -> dict[str, Any]:
    where = f"record {row}, {name!r}"
    try:
        if isinstance(value, Cell):
            return value.to_json()
        if isinstance(value, Mapping):
            return _placed(value, folders)
        if isinstance(value, os.PathLike) or (isinstance(value, str) and kind != "text"):
            return _placed({"path": value}, folders)
        if isinstance(value, str):
            return {"value": value}
        if kind == "array" and not isinstance(value, bytes):
            return {"value": _vector(value)}
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    expected = {"text": "a string", "array": "a vector of numbers"}.get(kind, "the path of a file")
    raise DataError(
        f"{where} is of type {type(value).__name__}, expected {expected}, a Cell or None; save in-memory media to "
        "files first"
    )


def _placed(cell: Mapping[str, Any], folders: Folders) -> dict[str, Any]:
    placed = dict(cell)
    for name in ("path", "array", "table"):
        if isinstance(placed.get(name), str | os.PathLike):
            placed[name], root = folders.place(os.fspath(placed[name]))
            placed |= {"root": root} if root else {}
    return placed


def _vector(value: Any) -> list[float]:
    if hasattr(value, "detach") and hasattr(value, "cpu"):
        value = value.detach().cpu()
    try:
        vector = np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"not a vector of numbers ({error})") from None
    if vector.ndim != 1 or not vector.size:
        raise DataError(f"the value has shape {vector.shape}, expected a vector (D,)")
    numbers: list[float] = vector.tolist()
    return numbers


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float) and value.is_integer():
        return int(value)  # data frames store integers with gaps as floats
    return list(value) if isinstance(value, np.ndarray | tuple) else value
