"""Faults of training data in the study `front`. Rows of other splits do not change.

Shapes: `N` items, `n` training rows.
"""

from collections.abc import Callable, Mapping

import numpy as np

from research._front_data import rows_of
from research._plan import DataTransform
from research._transforms import with_presence
from unialign._checks import check_choice
from unialign.data import EmbeddingStore

__all__ = ["FAULTS", "changed"]


def changed(store: EmbeddingStore, fault: DataTransform | None, seed: int) -> EmbeddingStore:
    if fault is None:
        return store
    check_choice("fault", fault.name, FAULTS)
    return FAULTS[fault.name](store, seed=seed, **fault.arguments)


def mispair(store: EmbeddingStore, *, seed: int, fraction: float) -> EmbeddingStore:
    """Exchange the rows of a fraction of the training items, independently in each modality."""
    rng = np.random.default_rng(seed)
    columns = {}
    for name in store.modalities:
        own = store.rows("train")[store.present(name)[store.rows("train")]]
        chosen = rng.permutation(own)[: round(fraction * len(own))]
        array = np.array(store.array(name))
        # A cyclic shift moves every chosen row.
        array[chosen] = array[np.roll(chosen, 1)]
        columns[name] = array
    return EmbeddingStore.from_arrays(
        columns,
        present={name: store.present(name) for name in store.modalities},
        ids=store.ids if store.has_ids else None,
        groups=store.groups,
        labels=store.labels,
        label_names=store.label_names or None,
        split=store.split,
        name=store.name,
    )


def rare_modalities(store: EmbeddingStore, *, seed: int, fraction: float) -> EmbeddingStore:
    """Keep the entries of a fraction of the training items in every second modality."""
    rng = np.random.default_rng(seed)
    rows_n = store.rows("train")
    present = {}
    for name in store.modalities[1::2]:
        kept_N = np.ones(store.items, dtype=np.bool_)
        kept_N[rows_n] = rng.random(len(rows_n)) < fraction
        present[name] = store.present(name) & kept_N
    return with_presence(store, present)


def rare_classes(store: EmbeddingStore, *, seed: int, fraction: float) -> EmbeddingStore:
    """Keep a fraction of the training items in every second class, at least two of each."""
    rng = np.random.default_rng(seed)
    rows_n = store.rows("train")
    removed = []
    for label in np.unique(store.labels[rows_n])[1::2]:
        own = rng.permutation(rows_n[store.labels[rows_n] == label])
        removed.append(own[max(2, round(fraction * len(own))) :])
    kept = np.setdiff1d(np.arange(store.items), np.concatenate([*removed, np.empty(0, np.int64)]))
    return rows_of(store, kept, store.split[kept])


FAULTS: Mapping[str, Callable[..., EmbeddingStore]] = {
    "mispair": mispair,
    "rare_classes": rare_classes,
    "rare_modalities": rare_modalities,
}
