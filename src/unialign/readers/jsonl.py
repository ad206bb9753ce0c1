"""Read JSON lines: each line is an object whose lists of numbers are vectors, or a single list of numbers."""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from unialign._checks import one_line
from unialign.errors import DataError
from unialign.readers._entry import EmbeddingFile
from unialign.readers._item_records import Folders, ItemOptions, ItemRecords
from unialign.readers._list_cells import ListCells
from unialign.readers._manifest import SAMPLED_ROWS, manifest_of_files, sampled_fields
from unialign.readers._manifest_plan import Field
from unialign.readers._table import Cells, Column, table_file
from unialign.readers._text import text_format, text_lines

__all__ = ["JsonItems", "JsonLinesReader"]

# Number of lines that determine the columns and their types.
_TYPED_ROWS = 1000
# Key of the vectors in a file whose lines are lists.
_LIST_KEY = "embedding"
_NESTED = "lists of lists; average over tokens"


class JsonLinesReader:
    """Reader of .jsonl files. If a key is missing or null in a line, this line has no vector for the key."""

    name = "jsonl"
    suffixes = (".jsonl", ".ndjson")

    def can_read(self, path: Path, head: bytes) -> bool:
        return text_format(path, head) == "jsonl"

    def open(self, path: Path) -> EmbeddingFile:
        table = _JsonTable(path)
        nested = [name for name, column in table.columns.items() if column.what == _NESTED]
        if nested and table.rows == 1:
            raise DataError(
                f"{path} is one JSON object with all items in {nested[0]!r}; convert it: numpy.savez('x.npz', "
                f"**{{k: numpy.array(v) for k, v in json.load(open({path.name!r})).items()}})"
            )
        return table_file(table, self.name)

    def read_items(self, paths: Sequence[Path], options: ItemOptions) -> ItemRecords:
        return manifest_of_files([JsonItems(path) for path in paths], options)


class JsonItems:
    """Lines of a JSON lines file as items."""

    unit = "line"

    def __init__(self, path: Path) -> None:
        self.path, self._table = path, _JsonTable(path)

    def fields(self) -> Sequence[Field]:
        return sampled_fields([_flat(record) for _, record in islice(self._table.records(), SAMPLED_ROWS)])

    def rows(self, columns: Sequence[str], folders: Folders) -> Iterator[tuple[int, Mapping[str, Any]]]:
        for number, record in self._table.records():
            yield number, _flat(record)


def _flat(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Convert a line in the form of `items.jsonl` to an object whose entries are the cells."""
    cells = record.get("cells")
    if not isinstance(cells, dict):
        return record
    return {**{name: value for name, value in record.items() if name != "cells"}, **cells}


class _JsonTable:
    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def rows(self) -> int:
        return sum(1 for line in text_lines(self.path) if line.strip())

    @cached_property
    def columns(self) -> Mapping[str, Column]:
        cells: dict[str, list[Any]] = {}
        for i, (_, record) in enumerate(self.records()):
            if i == _TYPED_ROWS:
                break
            for key, value in record.items():
                cells.setdefault(key, []).append(value)
        return {key: _column([value for value in values if value is not None]) for key, values in cells.items()}

    def batches(self, names: Sequence[str], rows: int) -> Iterator[Sequence[Cells]]:
        batch: list[dict[str, Any]] = []
        for _, record in self.records():
            batch.append(record)
            if len(batch) == rows:
                yield [ListCells([record.get(name) for record in batch]) for name in names]
                batch = []
        if batch:
            yield [ListCells([record.get(name) for record in batch]) for name in names]

    def records(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the number and the object of each line."""
        for number, line in enumerate(text_lines(self.path), 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(
                    f"{self.path}, line {number} is not JSON ({one_line(error)}); write one object per line"
                ) from None
            if isinstance(record, list):
                record = {_LIST_KEY: record}
            if not isinstance(record, dict):
                raise DataError(f"{self.path}, line {number} is {line.strip():.40}; expected an object such as {{...}}")
            yield number, record


def _column(values: list[Any]) -> Column:
    kinds = {type(value) for value in values}
    if not kinds or kinds == {str}:
        return Column("text")
    if kinds == {bool}:
        return Column("bool")
    if kinds == {int}:
        return Column("integer", "<f4")
    if kinds <= {int, float}:
        return Column("float", "<f4")
    if kinds != {list}:
        return Column("", "", "objects" if dict in kinds else "values of several types")
    entries = {type(entry) for value in values[:100] for entry in value}
    if entries <= {int, float}:
        return Column("vectors", "<f4")
    return Column("", "", _NESTED if entries == {list} else "lists of values other than numbers")
