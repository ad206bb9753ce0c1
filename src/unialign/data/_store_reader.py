"""Read an `EmbeddingStore` like any other embedding file."""

from pathlib import Path

import numpy as np

from unialign import registry
from unialign.data._layout import DESCRIPTION_FILE, array_file
from unialign.data._store import EmbeddingStore
from unialign.readers import ArrayEntry, EmbeddingFile, FileRegion

__all__ = ["StoreReader", "store_file"]


class StoreReader:
    name = "store"
    suffixes = ()

    def can_read(self, path: Path, head: bytes) -> bool:
        return (path / DESCRIPTION_FILE).exists()

    def open(self, path: Path) -> EmbeddingFile:
        return store_file(EmbeddingStore.open(path), str(path))


def store_file(store: EmbeddingStore, label: str) -> EmbeddingFile:
    entries: list[ArrayEntry] = []
    for name in store.columns:
        array_NW = store.array(name)  # validates the header without reading the data
        is_default = name in store.modalities
        if store.path is None:
            entries.append(ArrayEntry.from_array(name, array_NW, is_default=is_default))
        else:
            path = store.path / array_file(name)
            offset = path.stat().st_size - array_NW.nbytes
            region = FileRegion(path, offset, array_NW.shape, str(array_NW.dtype))
            entries.append(ArrayEntry.from_region(name, region, is_default=is_default))
        mask_N = store.present(name)
        if not mask_N.all():
            entries.append(ArrayEntry.from_array(f"present.{name}", mask_N))
    if store.keys is not None:
        entries.append(ArrayEntry.from_array("ids", np.array(store.keys, np.str_)))
    elif len(np.unique(store.ids)) < store.items:
        entries.append(ArrayEntry.from_array("ids", store.ids))
    if (store.labels >= 0).any():
        entries.append(ArrayEntry.from_array("labels", store.labels))
    return EmbeddingFile(label, "store", store.name, {entry.key: entry for entry in entries})


registry.register("readers", StoreReader.name, StoreReader)
