"""Read and cache the files of a store; each file is checked against its record in `store.json`."""

import json
from collections.abc import Callable
from typing import Any, TypeVar

from numpy.typing import NDArray

from unialign.data import _layout
from unialign.data._item_values import check_values, default_values
from unialign.data._layout import Column, Description, FileRecord
from unialign.data._sampling import Sampling
from unialign.data._storage import FolderStorage, MemoryStorage
from unialign.data._validation import named_column
from unialign.errors import DataError

__all__ = ["StoreFiles"]

T = TypeVar("T")


class StoreFiles:
    def __init__(self, description: Description, storage: FolderStorage | MemoryStorage) -> None:
        """Private; use `EmbeddingStore.open`, `write` or `from_arrays`."""
        self._description = description
        self._storage = storage
        self._fingerprint = description.fingerprint()
        self._sampling: Sampling | None = None
        self._cache: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Pickling a memory map would copy the whole array into every worker process; workers map the file again.
        return {**self.__dict__, "_cache": {}}

    def _column(self, name: str) -> Column:
        return named_column(name, self._description.columns)

    def _cached(self, file: str, read: Callable[[], T]) -> T:
        if file not in self._cache:
            self._cache[file] = read()
        value: T = self._cache[file]
        return value

    def _rows(self, kind: str) -> NDArray[Any]:
        return self._values(kind, _layout.rows_file(kind), self._description.rows.get(kind))

    def _values(self, kind: str, file: str, record: FileRecord | None) -> NDArray[Any]:
        def read() -> NDArray[Any]:
            if record is None:
                return default_values(kind, self._description.items)
            values_N = self._storage.array(file, record, _layout.ITEM_DTYPES[kind], (self._description.items,))
            check_values(kind, values_N, self._description.label_names, self._where(file))
            return values_N

        return self._cached(file, read)

    def _read_names(self) -> tuple[str, ...]:
        record = self._description.names
        if record is None:
            return tuple(f"item {row}" for row in range(self._description.items))
        return self._read_texts(_layout.NAMES_FILE, record)

    def _read_texts(self, file: str, record: FileRecord) -> tuple[str, ...]:
        items, text = self._description.items, self._read_bytes(file, record)
        try:
            texts = json.loads(text)
        except (ValueError, RecursionError):
            texts = None
        if not isinstance(texts, list) or len(texts) != items or not all(isinstance(text, str) for text in texts):
            raise DataError(
                f"{self._where(file)} is not a list of {items} strings; restore the file or write the store again"
            )
        return tuple(texts)

    def _read_bytes(self, file: str, record: FileRecord) -> bytes:
        return b"".join(self._storage.chunks(file, record))

    def _check_unaltered(self, file: str, record: FileRecord, sha256: str) -> None:
        if sha256 != record.sha256:
            raise DataError(
                f"{self._where(file)} was altered: its sha256 is {sha256}, expected {record.sha256}; "
                f"restore the data or write the store again"
            )

    def _where(self, file: str) -> str:
        folder = self._storage.path
        return f"{file} (in memory)" if folder is None else str(folder / file)
