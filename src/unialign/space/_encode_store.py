"""Embed the columns of a store in batches, and write them to a new store.

Shapes: `b` items of a batch.
"""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from unialign.data import EmbeddingStore, Overwrite, RowReader, derive_store
from unialign.space._encoders import check_encoders
from unialign.space._fingerprint import space_fingerprint

if TYPE_CHECKING:
    from unialign.space._space import Space


def encode_store(
    space: "Space", store: EmbeddingStore, path: str | os.PathLike[str], *, overwrite: Overwrite, batch_size: int
) -> EmbeddingStore:
    check_encoders(space, store)

    def embed(readers: Mapping[str, RowReader], rows_b: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        embeddings = space.encode(
            {name: reader.read(rows_b) for name, reader in readers.items()},
            present={name: torch.from_numpy(store.present(name)[rows_b]) for name in readers},
        )
        return {name: z_bD.float().cpu().numpy() for name, z_bD in embeddings.items()}

    return derive_store(
        store,
        path,
        embed,
        modalities=space.modalities,
        source="space",
        overwrite=overwrite,
        batch_size=batch_size,
        # An index accepts only embeddings of its own space.
        provenance={"space": space_fingerprint(space)},
    )
