"""Embed the columns of a store in batches, and write them to a new store. Shapes: `N` items, `b` items of a batch."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from unialign._checks import check_integer
from unialign.data import EmbeddingStore, Overwrite, RowReader
from unialign.errors import ConfigError

if TYPE_CHECKING:
    from unialign.space._space import Space


def encode_store(
    space: "Space", store: EmbeddingStore, path: str | os.PathLike[str], *, overwrite: Overwrite, batch_size: int
) -> EmbeddingStore:
    """See `Space.encode_store`."""
    check_integer("batch_size", batch_size, low=1)
    names = [name for name in store.modalities if name in space.modalities]
    if not names:
        raise ConfigError(
            f"no modality is in both the store ({', '.join(store.modalities)}) and the space "
            f"({', '.join(space.modalities)})"
        )

    def parts() -> Iterator[dict[str, Any]]:
        readers = {name: RowReader(store.array(name)) for name in names}
        for start in range(0, store.items, batch_size):
            rows_b = np.arange(start, min(start + batch_size, store.items))
            embeddings = space.encode(
                {name: reader.read(rows_b) for name, reader in readers.items()},
                present={name: torch.from_numpy(store.present(name)[rows_b]) for name in names},
            )
            yield {name: z_bD.float().cpu().numpy() for name, z_bD in embeddings.items()}

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
        provenance=store.provenance | {"columns": {name: {"embedding": "a space"} for name in names}},
    )
