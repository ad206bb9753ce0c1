"""Define a tiny store with a validation split, and settings for which training stops early."""

from typing import Any

import numpy as np

from train_cases import tiny_store
from unialign.data import EmbeddingStore

STOPPING: dict[str, Any] = {"early_stopping_patience": 3, "early_stopping_metric": "mrr", "lr": 0.05}


def store_with_validation(*, labels: bool = False) -> EmbeddingStore:
    tiny = tiny_store()
    rows: dict[str, Any] = {"labels": np.arange(tiny.items) % 2} if labels else {}
    return EmbeddingStore.from_arrays(
        {name: tiny.array(name) for name in tiny.modalities},
        present={name: tiny.present(name) for name in tiny.modalities},
        ids=tiny.ids,
        split=["val" if code == 2 else "train" for code in tiny.split],
        name="tiny",
        **rows,
    )
