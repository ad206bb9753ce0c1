"""Read .parquet files with pyarrow: columns of float lists are modalities, and null rows are absent."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unialign._checks import one_line
from unialign.errors import DataError
from unialign.readers._arrow_items import (
    arrow_fields,
    first_values,
    is_reference,
    leaf_of,
    row_values,
    sampled_columns,
    table_place,
)
from unialign.readers._arrow_table import ArrowCells, arrow_columns, arrow_module, readable
from unialign.readers._entry import EmbeddingFile, repeated
from unialign.readers._item_records import Folders, ItemOptions, ItemRecords
from unialign.readers._manifest import SAMPLED_ROWS, manifest_of_files
from unialign.readers._manifest_plan import Field
from unialign.readers._table import Cells, table_file

__all__ = ["ParquetItems", "ParquetReader"]

_LIST = re.compile(r"\.list\.(?:element|item)$|\.array$")


# Rows of a batch, without and with media or vectors.
_ROWS, _WIDE_ROWS = 1 << 12, 64


class ParquetReader:
    name = "parquet"
    suffixes = (".parquet",)

    def can_read(self, path: Path, head: bytes) -> bool:
        return head.startswith(b"PAR1")

    def open(self, path: Path) -> EmbeddingFile:
        return table_file(_ParquetTable(path), self.name)

    def read_items(self, paths: Sequence[Path], options: ItemOptions) -> ItemRecords:
        return manifest_of_files([ParquetItems(path) for path in paths], options)


class ParquetItems:
    """Rows of a Parquet file as items; media and vectors are not read."""

    unit = "row"

    def __init__(self, path: Path) -> None:
        self.path = path
        with readable(path, "parquet"):
            self._schema = _open(path).schema_arrow
            for name in repeated(self._schema.names):
                raise DataError(f"{path} holds several columns called {name!r}; rename them")

    def fields(self) -> Sequence[Field]:
        with readable(self.path, "parquet"):
            names = sampled_columns(self._schema)
            batch = next(_batches(_open(self.path), names, SAMPLED_ROWS), None) if names else None
            return arrow_fields(self._schema, {} if batch is None else first_values(self._schema, batch))

    def rows(self, columns: Sequence[str], folders: Folders) -> Iterator[tuple[int, Mapping[str, Any]]]:
        with readable(self.path, "parquet"):
            file, start = _open(self.path), 0
            kinds = {name: self._schema.field(name).type for name in columns}
            table = table_place(self.path, folders, kinds.values())
            leaves = {name: leaf_of(name, kind) for name, kind in kinds.items() if is_reference(kind)}
            for group in range(file.metadata.num_row_groups):
                # Media and vectors are read only to find absent cells, if the number of nulls is not known to be 0.
                present = {name: leaf for name, leaf in leaves.items() if _is_full(file, group, leaf)}
                read = [name for name in columns if name not in present]
                if not read:
                    size = file.metadata.row_group(group).num_rows
                    yield from row_values(present, start, size, table)
                    start += size
                    continue
                for batch in _batches(file, read, _WIDE_ROWS if leaves.keys() & set(read) else _ROWS, [group]):
                    values = {name: batch.column(name) for name in read}
                    yield from row_values({**values, **present}, start, batch.num_rows, table)
                    start += batch.num_rows


def _batches(file: Any, names: Sequence[str], rows: int, groups: Sequence[int] | None = None) -> Iterator[Any]:
    batches: Iterator[Any] = file.iter_batches(rows, row_groups=groups, columns=list(names), use_threads=False)
    return batches


def _is_full(file: Any, group: int, leaf: str) -> bool:
    """Return whether, according to the statistics of a row group, no value of a leaf is null."""
    paths = [_LIST.sub("", file.schema.column(i).path) for i in range(len(file.schema))]
    # Read a row first: with damaged column metadata, this raises an exception, whereas other calls of pyarrow would end
    # the process.
    if paths.count(leaf) != 1 or next(_batches(file, [leaf], 1, [group]), None) is None:
        return False
    statistics = file.metadata.row_group(group).column(paths.index(leaf)).statistics
    return statistics is not None and bool(statistics.has_null_count) and statistics.null_count == 0


class _ParquetTable:
    def __init__(self, path: Path) -> None:
        self.path = path
        with readable(path, "parquet"):
            opened = _open(path)
            for name in repeated(opened.schema_arrow.names):
                raise DataError(f"{path} holds several columns called {name!r}; rename them")
            self.columns = arrow_columns(opened.schema_arrow)
            self.rows = int(opened.metadata.num_rows)

    def batches(self, names: Sequence[str], rows: int) -> Iterator[Sequence[Cells]]:
        try:
            for batch in _open(self.path).iter_batches(batch_size=rows, columns=list(names), use_threads=False):
                # pyarrow returns columns in the order of the file.
                yield [ArrowCells(batch.column(name)) for name in names]
        except Exception as error:  # malicious input may raise any exception in the parser
            raise DataError(
                f"{self.path}: {names[0]!r} cannot be read ({one_line(error)}); write the file again"
            ) from None


def _open(path: Path) -> Any:
    parquet = arrow_module("pyarrow.parquet", path)
    try:
        # Use a buffered stream; otherwise, a whole column of a row group, possibly with all rows, is read at once.
        return parquet.ParquetFile(path, memory_map=False, pre_buffer=False, buffer_size=1 << 20)
    except Exception as error:  # malicious input may raise any exception in the parser
        raise DataError(f"{path} is not a readable parquet file ({one_line(error)}); write it again") from None
