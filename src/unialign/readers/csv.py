"""Read .csv and .tsv files and number tables; a file without a header is one matrix."""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from unialign.errors import DataError
from unialign.readers._entry import EmbeddingFile, repeated
from unialign.readers._item_records import Folders, ItemOptions, ItemRecords
from unialign.readers._list_cells import ListCells
from unialign.readers._manifest import SAMPLED_ROWS, manifest_of_files, sampled_fields
from unialign.readers._manifest_plan import Field
from unialign.readers._quotes import kept_lines, open_quote
from unialign.readers._table import Cells, Column, table_file
from unialign.readers._text import MAX_LINE_BYTES, numbers_in, text_format, text_lines

__all__ = ["CsvItems", "CsvReader"]

# Number of rows that determine the type of a column.
_TYPED_ROWS = 1000
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+(?:[eE][-+]?\d+)?")


class CsvReader:
    """Reader of tables with cells separated by commas, tabs, semicolons, vertical bars or spaces."""

    name = "csv"
    suffixes = (".csv", ".tsv")

    def can_read(self, path: Path, head: bytes) -> bool:
        return text_format(path, head) == "csv"

    def open(self, path: Path) -> EmbeddingFile:
        table = _CsvTable(path)
        if not table.rows:
            raise DataError(f"{path} has no rows; write a line of column names, then one item per line")
        file = table_file(table, self.name)
        if not table.is_numbered:
            return file
        note = f"{path}: the first line ({table.names[0]} to {table.names[-1]}) is read as column names, not as an item"
        return replace(file, notes=(*file.notes, note))

    def read_items(self, paths: Sequence[Path], options: ItemOptions) -> ItemRecords:
        return manifest_of_files([CsvItems(path) for path in paths], options)


class CsvItems:
    """Rows of a text file as items."""

    unit = "line"

    def __init__(self, path: Path) -> None:
        self.path, self._table = path, _CsvTable(path)
        if not self._table.has_header:
            raise DataError(f"{path} has no column names; write a first line such as: id,image,text")

    def fields(self) -> Sequence[Field]:
        first = [
            dict(zip(self._table.names, record, strict=True))
            for _, record in islice(self._table.records(), SAMPLED_ROWS)
        ]
        return sampled_fields(first or [dict.fromkeys(self._table.names)])

    def rows(self, columns: Sequence[str], folders: Folders) -> Iterator[tuple[int, Mapping[str, Any]]]:
        places = [(name, self._table.names.index(name)) for name in columns]
        for number, record in self._table.records():
            yield number, {name: record[place] for name, place in places}


class _CsvTable:
    def __init__(self, path: Path) -> None:
        self.path = path
        csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))
        first, second, comment = "", "", ""
        number = start = 0
        for number, line in enumerate(text_lines(path), 1):
            if line.startswith("# "):
                comment = comment if first else line[2:]  # header in the format of numpy.savetxt
            elif line.strip() and first:
                second = line
                break
            elif line.strip():
                first, start = line, number
        try:
            self.delimiter = _delimiter(first)
            cells, named = self._split(first), self._split(comment)
        except csv.Error as error:
            raise self._unreadable(error, first, start) from None
        try:
            following = self._split(second)
        except csv.Error as error:
            raise self._unreadable(error, second, number) from None
        self.is_numbered = len(named) != len(cells) and self._is_numbered(cells, following)
        self.has_header = numbers_in(cells) < len(cells) or not cells or self.is_numbered
        if self.has_header:
            self.names = [cell.strip() for cell in cells]
        else:
            self.names = named if len(named) == len(cells) else [str(i) for i in range(len(cells))]
        self.has_decimal_comma = False
        for name in repeated(self.names):
            raise DataError(f"{path} holds several columns called {name!r}; rename them")

    @cached_property
    def rows(self) -> int:
        return sum(1 for _ in self.records())

    @cached_property
    def columns(self) -> Mapping[str, Column]:
        first: list[list[str]] = []
        for _, record in self.records():
            first.append(record)
            if len(first) == _TYPED_ROWS:
                break
        # In many European locales, cells are separated by semicolons and numbers have a decimal comma.
        numbers = [cell for record in first[:20] for cell in record if _DECIMAL_COMMA.fullmatch(cell.strip())]
        self.has_decimal_comma = self.delimiter == ";" and bool(numbers)
        return {name: _column([self._cell(record[i]) or "" for record in first]) for i, name in enumerate(self.names)}

    def batches(self, names: Sequence[str], rows: int) -> Iterator[Sequence[Cells]]:
        places = [self.names.index(name) for name in names]
        batch: list[list[str]] = []
        for _, record in self.records():
            batch.append(record)
            if len(batch) == rows:
                yield [ListCells([self._cell(record[place]) for record in batch]) for place in places]
                batch = []
        if batch:
            yield [ListCells([self._cell(record[place]) for record in batch]) for place in places]

    def _is_numbered(self, cells: Sequence[str], following: Sequence[str]) -> bool:
        """Return whether the header only numbers the columns from 0 or 1, as data frames without column names do."""
        numbers = [cell.strip() for cell in cells]
        if not any(numbers == [str(first + i) for i in range(len(cells))] for first in (0, 1)):
            return False
        # A line of one or two small integers may be an item, unless the next line has fractions.
        return len(cells) > 2 or any("." in cell for cell in following)

    def _cell(self, text: str) -> str | None:
        if self.has_decimal_comma and _DECIMAL_COMMA.fullmatch(text.strip()):
            return text.strip().replace(",", ".")
        return text if text.strip() else None

    def records(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the number of the last line and the cells of each row."""
        # Lines of the current row.
        read: list[str] = []
        before = 0
        if self.delimiter == " ":
            lines = enumerate(text_lines(self.path), 1)
            records = ((number, line.split()) for number, line in lines if not line.startswith("# "))
        else:
            reader = csv.reader(kept_lines(text_lines(self.path), read), delimiter=self.delimiter)
            records = ((reader.line_num, record) for record in reader)
        skip = self.has_header
        try:
            for number, record in records:
                if (opened := open_quote(read, self.delimiter)) is not None:
                    raise self._open_quote(before + 1 + opened)
                first, before = before + 1, number
                read.clear()
                if not record or (len(record) == 1 and not record[0].strip()):
                    continue
                # After a header, "# " begins a cell of text. Tables without a header may have comments on any line.
                if record[0].startswith("# ") and (skip or not self.has_header):
                    continue
                if skip:
                    skip = False
                    continue
                if len(record) != len(self.names):
                    where = f"line {number} has" if first == number else f"the row of lines {first} to {number} has"
                    raise DataError(
                        f"{self.path}, {where} {len(record)} cells, but the first line has "
                        f"{len(self.names)}; quote cells that contain the delimiter"
                    )
                yield number, record
        except csv.Error as error:
            if len(read) > 1 and (opened := open_quote(read, self.delimiter)) is not None:
                raise self._open_quote(before + 1 + opened) from None
            raise self._unreadable(error, read[-1] if read else "", before + 1) from None

    def _open_quote(self, line: int) -> DataError:
        return DataError(
            f"{self.path}, line {line}: a quote opens and is not closed in the rest of the file; close the quote, or "
            'double quotes inside a quoted cell ("")'
        )

    def _unreadable(self, error: csv.Error, line: str, number: int) -> DataError:
        if "\r" in line.rstrip("\r\n"):
            return DataError(
                f"{self.path}, line {number}: a line ends with CR only; save the file with line ends LF or CR LF"
            )
        return DataError(f"{self.path}, line {number} cannot be read as a table ({error}); write it again")

    def _split(self, line: str) -> list[str]:
        if self.delimiter == " ":
            return line.split()
        return next(csv.reader([line], delimiter=self.delimiter), [])


def _delimiter(line: str) -> str:
    counts = {mark: len(next(csv.reader([line], delimiter=mark), [])) for mark in ("\t", ",", ";", "|")}
    best = max(counts, key=lambda mark: counts[mark])
    if counts[best] > 1:
        return best
    cells = line.split()
    return " " if len(cells) > 1 and numbers_in(cells) == len(cells) else ","


def _column(cells: list[str]) -> Column:
    given = [cell.strip() for cell in cells if cell.strip()]
    if not given or numbers_in(given) < len(given):
        return Column("text")
    # A string such as "007" is an id.
    if any(len(cell) > 1 and cell[0] == "0" and cell.isdigit() for cell in given):
        return Column("text")
    if all(cell.lstrip("+-").isdigit() for cell in given):
        return Column("integer", "<f4")
    return Column("float", "<f8" if any(len(cell.strip("-0.")) > 11 for cell in given[:20]) else "<f4")
