"""Read .parquet files with pyarrow: columns of float lists are modalities, and null rows are absent."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from unialign._checks import one_line
from unialign.errors import DataError
from unialign.readers._arrow_table import ArrowCells, arrow_columns, arrow_module
from unialign.readers._entry import EmbeddingFile, repeated
from unialign.readers._table import Cells, table_file

__all__ = ["ParquetReader"]


class ParquetReader:
    name = "parquet"
    suffixes = (".parquet",)

    def can_read(self, path: Path, head: bytes) -> bool:
        return head.startswith(b"PAR1")

    def open(self, path: Path) -> EmbeddingFile:
        return table_file(_ParquetTable(path), self.name)


class _ParquetTable:
    def __init__(self, path: Path) -> None:
        self.path = path
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
