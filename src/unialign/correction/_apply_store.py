"""Repair the columns of a store in batches. Shapes: `b` items of a batch, `D` dimension."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from unialign._checks import check_integer
from unialign.data import EmbeddingStore, Overwrite, RowReader
from unialign.errors import ConfigError

if TYPE_CHECKING:
    from unialign.correction._repair import Repair


def apply_store(
    repair: "Repair", store: EmbeddingStore, path: str | os.PathLike[str], *, overwrite: Overwrite, batch_size: int
) -> EmbeddingStore:
    """See `Repair.apply_store`."""
    check_integer("batch_size", batch_size, low=1)
    names = [name for name in store.modalities if name in repair.modalities]
    if not names:
        raise ConfigError(
            f"no modality is in both the store ({', '.join(store.modalities)}) and the repair "
            f"({', '.join(repair.modalities)})"
        )

    def parts() -> Iterator[dict[str, Any]]:
        readers = {name: RowReader(store.array(name)) for name in names}
        for start in range(0, store.items, batch_size):
            rows_b = np.arange(start, min(start + batch_size, store.items))
            repaired = repair.apply(
                {name: reader.read(rows_b).astype(np.float32, copy=False) for name, reader in readers.items()},
                present={name: torch.from_numpy(store.present(name)[rows_b]) for name in names},
            )
            yield {name: z_bD.float().cpu().numpy() for name, z_bD in repaired.items()}

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
        provenance=store.provenance | {"columns": {name: {"embedding": "a repair"} for name in names}},
    )
