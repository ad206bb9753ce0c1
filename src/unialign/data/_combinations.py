"""Count items by the modalities that they have."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.data._store import EmbeddingStore

__all__ = ["combinations", "combinations_of"]


def combinations(store: EmbeddingStore, modalities: Sequence[str], split: str) -> list[dict[str, Any]]:
    """Return the result of `combinations_of` for the items of a split."""
    rows_N = store.rows(split)
    return combinations_of(np.stack([store.present(name)[rows_N] for name in modalities], axis=1), modalities)


def combinations_of(present_NM: NDArray[np.bool_], modalities: Sequence[str]) -> list[dict[str, Any]]:
    """Return one dict with `modalities` and `items` (a count) per combination, the most frequent first."""
    masks, counts = np.unique(present_NM, axis=0, return_counts=True)
    found = [
        {"modalities": [name for name, is_present in zip(modalities, mask, strict=True) if is_present], "items": int(n)}
        for mask, n in zip(masks, counts, strict=True)
    ]
    return sorted(found, key=lambda entry: (-entry["items"], entry["modalities"]))
