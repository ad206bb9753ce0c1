"""The data of the trials: the training and validation rows only, so that no trial can read a test row."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.data import EmbeddingStore, RowReader
from unialign.errors import DataError

FOLDER = "search-data"
_SOURCE = "search_of"
_BLOCK_ROWS = 8192


def open_search_store(store: EmbeddingStore, folder: Path) -> EmbeddingStore:
    """Open the store of the trials in a results folder, written before from the same data, or write it."""
    path = folder / FOLDER
    if path.exists():
        try:
            found = EmbeddingStore.open(path)
            if found.provenance.get(_SOURCE) == _source(store) and not len(found.rows("test")):
                return found
        except DataError:
            pass  # A damaged copy is written again.
    return write_search_store(store, folder)


def discard_search_store(folder: Path) -> None:
    """Delete the store, which can be written again."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def write_search_store(store: EmbeddingStore, folder: Path) -> EmbeddingStore:
    """Write the rows of the splits `train` and `val` in blocks, in their order, and open the new store."""
    rows_K = np.flatnonzero(np.isin(store.split, (0, 1)))
    names = store.modalities

    def parts() -> Iterator[Mapping[str, NDArray[Any]]]:
        readers = {name: RowReader(store.array(name)) for name in names}
        for start in range(0, len(rows_K), _BLOCK_ROWS):
            block = rows_K[start : start + _BLOCK_ROWS]
            yield {name: reader.read(block) for name, reader in readers.items()}

    return EmbeddingStore.write(
        folder / FOLDER,
        parts(),
        name=store.name,
        overwrite="replace",
        present={name: store.present(name)[rows_K] for name in names},
        ids=store.ids[rows_K] if store.has_ids else None,
        groups=store.groups[rows_K],
        labels=store.labels[rows_K],
        split=store.split[rows_K],
        default_modalities=names,
        provenance={_SOURCE: _source(store)},
    )


def _source(store: EmbeddingStore) -> dict[str, Any]:
    return {"fingerprint": store.fingerprint, "modalities": list(store.modalities)}
