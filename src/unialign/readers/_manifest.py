"""List the items of tables: each row is an item, and columns are modalities or values of the item."""

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from unialign._plain_text import count
from unialign.errors import DataError
from unialign.readers._file_mark import check_unchanged, file_mark
from unialign.readers._item_records import Folders, ItemOptions, ItemRecords
from unialign.readers._manifest_cells import RowConverter
from unialign.readers._manifest_plan import Field, field_of_values, make_plan
from unialign.readers._splits import SPLIT_NAMES

__all__ = [
    "SAMPLED_ROWS",
    "ManifestFile",
    "RowSource",
    "manifest_items",
    "manifest_name",
    "manifest_of_files",
    "sampled_fields",
    "splits_of",
]

# Number of rows whose values determine the type of a column.
SAMPLED_ROWS = 1000


class RowSource(Protocol):
    """A file with one item per row."""

    path: Path
    # "line" or "row", for messages.
    unit: str

    def fields(self) -> Sequence[Field]: ...

    def rows(self, columns: Sequence[str], folders: Folders) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Yield the number and the values of each row; columns that were not requested may be omitted."""


@dataclass(frozen=True)
class ManifestFile:
    """One file of a manifest; `prefix` is "" or a folder below the root with a final slash."""

    source: RowSource
    prefix: str = ""
    split: str | None = None
    label: str = ""


def manifest_of_files(sources: Sequence[RowSource], options: ItemOptions) -> ItemRecords:
    """List the items of manifest files; splits are read from the file names."""
    paths = [source.path for source in sources]
    files = [
        ManifestFile(source, split=split, label=split or "")
        for source, split in zip(sources, splits_of(paths), strict=True)
    ]
    return manifest_items(files, options, name=manifest_name(paths))


def manifest_items(
    files: Sequence[ManifestFile], options: ItemOptions, *, name: str, root: Path | None = None
) -> ItemRecords:
    """List the items of manifest files with the same columns. By default, paths are relative to the folder of the first
    file.
    """
    first = files[0].source
    folders = Folders(options.root or root or first.path.parent, allow_absolute=options.allow_absolute)
    plan = make_plan(first.fields(), options, first.path)
    for file in files[1:]:
        if missing := set(plan.needed) - {field.name for field in file.source.fields()}:
            raise DataError(
                f"{file.source.path} has no column {min(missing)!r}, which {first.path} has; pass files "
                "with the same columns"
            )
    marks = [file_mark(file.source.path) for file in files]
    # Row number of each item, and index of the first item of each file.
    numbers, starts = array("q"), list[int]()
    notes = plan.notes(first.path)

    def records() -> Iterator[Mapping[str, Any]]:
        items: Counter[str] = Counter()
        without_split = 0
        for file, mark in zip(files, marks, strict=True):
            starts.append(len(numbers))
            converter = RowConverter(plan, folders, file.prefix, file.split, file.label)
            for number, row in file.source.rows(plan.needed, folders):
                try:
                    for record in converter.records(row, items[file.label]):
                        numbers.append(number)
                        without_split += "split" not in record
                        yield record
                except DataError as error:
                    raise DataError(f"{file.source.path}, {file.source.unit} {number}: {error}") from None
                items[file.label] += 1
            check_unchanged(file.source.path, mark)
        if "split" in plan.values and without_split > 0:
            column = plan.values["split"]
            notes.append(f"{first.path}: {count(without_split, 'item')} without a split, since {column!r} is empty")

    def where(row: int) -> str:
        source = files[bisect_right(starts, row) - 1].source
        return f"{source.path}, {source.unit} {numbers[row]}"

    return ItemRecords(name, plan.kinds, records(), where, folders.roots, notes)


def sampled_fields(rows: Sequence[Mapping[str, Any]]) -> list[Field]:
    values: dict[str, list[Any]] = {}
    for row in rows:
        for name, value in row.items():
            own = values.setdefault(name, [])
            if value is not None and value != "":
                own.append(value)
    return [field_of_values(name, own) for name, own in values.items()]


def manifest_name(paths: Sequence[Path]) -> str:
    """Return the name of a single file up to the first dot, or the name of the folder of several files."""
    path = paths[0].absolute()
    return path.name.split(".")[0] or path.name if len(paths) == 1 else path.parent.name


def splits_of(paths: Sequence[Path]) -> list[str | None]:
    """Return the splits in names such as `train-00000-of-00002.parquet`, if all files have one."""
    splits = [SPLIT_NAMES.get(path.name.partition("-")[0].partition(".")[0].lower()) for path in paths]
    return splits if all(splits) and len(set(splits)) > 1 else [None] * len(paths)
