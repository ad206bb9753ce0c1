"""Convert the rows of a manifest to the lines of `items.jsonl`."""

import json
import math
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from unialign.errors import DataError
from unialign.readers._item_records import Folders
from unialign.readers._manifest_plan import How, Modality, Plan
from unialign.readers._splits import SPLIT_NAMES

__all__ = ["RowConverter"]

_FILES = ("path", "array", "table")


@dataclass(frozen=True)
class RowConverter:
    """Converts rows of one file to records; `label` is the prefix of generated ids."""

    plan: Plan
    folders: Folders
    prefix: str = ""
    split: str | None = None
    label: str = ""

    def records(self, row: Mapping[str, Any], number: int) -> Iterator[dict[str, Any]]:
        """Yield the records of a row; `number` is used as the id if the file has no ids."""
        record = self._values(row, number)
        cells = {}
        for modality in self.plan.modalities:
            cell = self._cell(row, modality)
            if cell is not None:
                cells[modality.name] = cell
        record["cells"] = cells
        if self.plan.expanded is None:
            yield record
            return
        name = next(m.name for m in self.plan.modalities if m.columns[0][0] == self.plan.expanded)
        texts = [text for text in row.get(self.plan.expanded) or () if isinstance(text, str)] or [""]
        for i, text in enumerate(texts):
            own = {**record, "id": f"{record['id']}/{i}", "cells": {**cells, name: {"value": text}}}
            yield {"ids": record["id"], "group": record["id"], **own}

    def _values(self, row: Mapping[str, Any], number: int) -> dict[str, Any]:
        record: dict[str, Any] = {}
        for name, column in self.plan.values.items():
            value = _plain(row.get(column))
            if value is not None and column in self.plan.names:
                names = self.plan.names[column]
                if not -1 <= value < len(names):
                    raise DataError(f"{column} is {value}, expected -1 or a class from 0 to {len(names) - 1}")
                # The library datasets marks items without a label by -1.
                value = None if value < 0 else names[value]
            if value is not None:
                record[name] = value
        if "id" in record:
            record["id"] = f"{self.prefix}{record['id']}"
        else:
            record["id"] = f"{self.label}/{number}" if self.label else str(number)
        if "split" in record:
            split = SPLIT_NAMES.get(str(record["split"]).lower())
            if split is None:
                raise DataError(f"split is {record['split']!r}, expected one of {', '.join(SPLIT_NAMES)}")
            record["split"] = split
        elif self.split is not None:
            record["split"] = self.split
        return record

    def _cell(self, row: Mapping[str, Any], modality: Modality) -> dict[str, Any] | None:
        for column, how in modality.columns:
            value = row.get(column)
            if value is None or value == "" or (isinstance(value, str) and value.isspace()):
                continue
            cell = self._converted(value, how)
            if cell is not None:
                return cell if modality.span is None else _with_span(cell, row, modality.span)
        return None

    def _converted(self, value: Any, how: How) -> dict[str, Any] | None:
        if how == "value":
            return {"value": value} if isinstance(value, str) else None
        if how == "path":
            return self._placed({"path": str(value).strip()})
        if how == "vector":
            return _vector(value)
        return self._placed(value)

    def _placed(self, cell: Mapping[str, Any]) -> dict[str, Any]:
        if "root" in cell:
            return dict(cell)
        placed = dict(cell)
        for name in _FILES:
            if isinstance(path := placed.get(name), str):
                placed[name], root = self.folders.place(posixpath.join(self.prefix, path) if self.prefix else path)
                if root:
                    placed["root"] = root
        return placed


def _vector(value: Any) -> dict[str, Any] | None:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise DataError(f"{value:.40} is not a list of numbers such as [0.1, 0.2]") from None
    return {"value": list(value)} if value else None


def _with_span(cell: dict[str, Any], row: Mapping[str, Any], span: tuple[str, str]) -> dict[str, Any]:
    start, end = (_plain(row.get(column)) for column in span)
    if start is None or end is None:
        return cell
    try:
        return {**cell, "span": [float(start), float(end)]}
    except (TypeError, ValueError):
        raise DataError(f"{span[0]} and {span[1]} are {start!r} and {end!r}, expected seconds") from None


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return None if math.isnan(value) else int(value) if value.is_integer() else value
    return None if value == "" else value
