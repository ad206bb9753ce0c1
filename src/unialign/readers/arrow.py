"""Read Arrow files with pyarrow: Feather version 2, Arrow IPC files, and IPC streams as written by `datasets`."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unialign._checks import one_line
from unialign.errors import DataError
from unialign.media import MediaLimits, compressed_batches
from unialign.readers._arrow_items import arrow_fields, first_values, row_values, sampled_columns, table_place
from unialign.readers._arrow_table import ArrowCells, arrow_columns, arrow_module, readable
from unialign.readers._entry import EmbeddingFile, repeated
from unialign.readers._item_records import Folders, ItemOptions, ItemRecords
from unialign.readers._manifest import SAMPLED_ROWS, manifest_of_files
from unialign.readers._manifest_plan import Field
from unialign.readers._table import Cells, table_file

__all__ = ["ArrowItems", "ArrowReader"]

_MAGIC = b"ARROW1"


class ArrowReader:
    name = "arrow"
    suffixes = (".arrow", ".feather")

    def can_read(self, path: Path, head: bytes) -> bool:
        return head.startswith((b"ARROW1", b"\xff\xff\xff\xff"))

    def open(self, path: Path) -> EmbeddingFile:
        return table_file(_ArrowTable(path), self.name)

    def read_items(self, paths: Sequence[Path], options: ItemOptions) -> ItemRecords:
        return manifest_of_files([ArrowItems(path) for path in paths], options)


class ArrowItems:
    """Rows of an Arrow file as items; media and vectors are not read."""

    unit = "row"

    def __init__(self, path: Path) -> None:
        self.path, self._table = path, _ArrowTable(path)

    def fields(self) -> Sequence[Field]:
        with readable(self.path, "Arrow"):
            names = [name.removesuffix(".path") for name in sampled_columns(self._table.schema)]
            first = next(iter(self._table.record_batches(names)))
            return arrow_fields(first.schema, first_values(first.schema, first.slice(0, SAMPLED_ROWS)))

    def rows(self, columns: Sequence[str], folders: Folders) -> Iterator[tuple[int, Mapping[str, Any]]]:
        with readable(self.path, "Arrow"):
            start = 0
            table = table_place(self.path, folders, [self._table.schema.field(name).type for name in columns])
            for batch in self._table.record_batches(columns):
                yield from row_values({name: batch.column(name) for name in columns}, start, len(batch), table)
                start += len(batch)


class _ArrowTable:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._ipc = arrow_module("pyarrow.ipc", path)
        self._pa = arrow_module("pyarrow", path)
        self.schema: Any = None
        self.rows = 0
        self._check_sizes()
        for batch in self.record_batches():
            self.schema = batch.schema
            self.rows += len(batch)
        if self.schema is None:
            raise DataError(f"{path} has no rows; write it again")
        with readable(path, "Arrow"):
            for name in repeated(self.schema.names):
                raise DataError(f"{path} holds several columns called {name!r}; rename them")
            self.columns = arrow_columns(self.schema)

    def _check_sizes(self) -> None:
        """Raise DataError for a batch that is too large, since batches are decompressed as a whole, and a damaged or
        malicious batch may be much larger than its file.
        """
        limit = MediaLimits().bytes
        with readable(self.path, "Arrow"), self._pa.memory_map(str(self.path)) as source:
            data = source.read_buffer()
            for rows, size in compressed_batches(data, is_file=data[:6] == _MAGIC):
                if size > limit * max(1, rows):
                    raise DataError(
                        f"{self.path} has a batch of {rows:,} rows with {size:,} bytes after decompression, expected "
                        f"at most {limit:,} bytes a row; write it without compression"
                    )

    def batches(self, names: Sequence[str], rows: int) -> Iterator[Sequence[Cells]]:
        for batch in self.record_batches(names):
            for start in range(0, len(batch), rows):
                part = batch.slice(start, rows)
                yield [ArrowCells(part.column(name)) for name in names]

    def record_batches(self, names: Sequence[str] = ()) -> Iterator[Any]:
        """Yield the batches; the named columns are validated, since damaged offsets would read outside the file."""
        try:
            with self._pa.memory_map(str(self.path)) as source:
                for batch in self._unchecked(source):
                    batch.validate()
                    if names:
                        batch.select(list(names)).validate(full=True)
                    yield batch
        except Exception as error:  # malicious input may raise any exception in the parser
            raise DataError(f"{self.path} is not a readable Arrow file ({one_line(error)}); write it again") from None

    def _unchecked(self, source: Any) -> Iterator[Any]:
        is_stream = source.read(6) != _MAGIC
        source.seek(0)
        if is_stream:
            yield from self._ipc.open_stream(source)
            return
        file = self._ipc.open_file(source)
        yield from map(file.get_batch, range(file.num_record_batches))
