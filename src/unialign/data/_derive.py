"""Write a store whose columns are computed from the columns of another store."""

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign._checks import check_integer
from unialign.data._row_blocks import RowReader
from unialign.data._store import EmbeddingStore
from unialign.data._streamed_asset import StreamedAsset
from unialign.data._write import Overwrite
from unialign.errors import ConfigError
from unialign.io import file_chunks


def derive_store(
    store: EmbeddingStore,
    path: str | os.PathLike[str],
    compute: Callable[[Mapping[str, RowReader], NDArray[np.int64]], Mapping[str, NDArray[Any]]],
    *,
    modalities: Collection[str],
    source: str,
    overwrite: Overwrite,
    batch_size: int,
    provenance: Mapping[str, Any] | None = None,
) -> EmbeddingStore:
    """Compute embeddings in batches, and write them together with all other data of the store (presence, ids, labels,
    assets, ...).

    Args:
        compute: maps readers of the columns and (b,) row numbers to the new rows of each column.
        modalities: modalities that `compute` supports.
        source: name of the object that computes the embeddings, such as `space`, for the provenance and messages.
        provenance: additional entries of the provenance. The entry `space` of the given store is not copied.

    Raises:
        ConfigError: the store has none of the modalities, or `batch_size` is below 1.
        DataError: as in `EmbeddingStore.write`.
    """
    check_integer("batch_size", batch_size, low=1)
    names = [name for name in store.modalities if name in modalities]
    if not names:
        raise ConfigError(
            f"no modality is in both the store ({', '.join(store.modalities)}) and the {source} "
            f"({', '.join(modalities)})"
        )

    def parts() -> Iterator[Mapping[str, NDArray[Any]]]:
        readers = {name: RowReader(store.array(name)) for name in names}
        for start in range(0, store.items, batch_size):
            yield compute(readers, np.arange(start, min(start + batch_size, store.items)))

    return EmbeddingStore.write(
        path,
        parts(),
        overwrite=overwrite,
        present={name: store.present(name) for name in names},
        ids=store.keys if store.keys is not None else store.ids if store.has_ids else None,
        groups=store.groups,
        labels=store.labels,
        label_names=store.label_names,
        split=store.split,
        names=store.item_names if store.has_names else None,
        assets={name: _copied(store, name) for name in store.assets},
        provenance={name: value for name, value in store.provenance.items() if name != "space"}
        | {"columns": {name: {"embedding": f"a {source}"} for name in names}}
        | dict(provenance or {}),
    )


def _copied(store: EmbeddingStore, name: str) -> StreamedAsset:
    def chunks() -> Iterator[bytes]:
        with store.open_asset(name) as file:
            yield from file_chunks(file)

    return StreamedAsset(chunks)
