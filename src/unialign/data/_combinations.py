"""Count the items of a store by the modalities that they have."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from unialign.data._store import EmbeddingStore

__all__ = ["combinations"]


def combinations(store: EmbeddingStore, modalities: Sequence[str], split: str) -> list[dict[str, Any]]:
    """Return one object with `modalities` and `items` per combination, the most frequent first."""
    rows_N = store.rows(split)
    present_NM = np.stack([store.present(name)[rows_N] for name in modalities], axis=1)
    masks, counts = np.unique(present_NM, axis=0, return_counts=True)
    found = [
        {"modalities": [name for name, is_present in zip(modalities, mask, strict=True) if is_present], "items": int(n)}
        for mask, n in zip(masks, counts, strict=True)
    ]
    return sorted(found, key=lambda entry: -entry["items"])
