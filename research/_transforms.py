"""Stores made from other stores, by name, since worker processes make them themselves.

A change keeps ids, groups, labels, splits and every row outside the training split. Shapes: `N` items.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from research._plan import DataTransform
from unialign._checks import check_choice, check_number
from unialign.data import EmbeddingStore

__all__ = ["CHANGES", "changed", "with_presence"]


def changed(store: EmbeddingStore, change: DataTransform | None, seed: int) -> EmbeddingStore:
    """The store that a run trains on."""
    if change is None:
        return store
    check_choice("change", change.name, CHANGES)
    return CHANGES[change.name](store, seed=seed, **change.arguments)


def with_presence(store: EmbeddingStore, present: Mapping[str, NDArray[np.bool_]]) -> EmbeddingStore:
    """The same data, in memory, where some modalities have fewer rows; (N,) bool for each of those named."""
    masks = {name: store.present(name) & present.get(name, True) for name in store.modalities}
    return EmbeddingStore.from_arrays(
        {name: store.array(name) for name in store.modalities},
        present=masks,
        ids=store.ids,
        groups=store.groups,
        labels=store.labels,
        label_names=store.label_names or None,
        split=store.split,
        names=store.item_names,
        name=store.name,
    )


def drop_entries(store: EmbeddingStore, *, seed: int, share: float) -> EmbeddingStore:
    """Each entry (item x modality) of the training split is dropped with probability `share`; an item keeps one.

    An item that would lose all keeps one at random, so that the number of items stays the same.
    """
    check_number("share", share, "in [0, 1)", lambda x: 0 <= x < 1)
    rng = np.random.default_rng(seed)
    there_NM = np.stack([store.present(name) for name in store.modalities], 1)
    kept_NM = there_NM & (rng.random(there_NM.shape) >= share)
    luck_NM = np.where(there_NM, rng.random(there_NM.shape), -1.0)
    lost_N = there_NM.any(1) & ~kept_NM.any(1)
    kept_NM[lost_N, luck_NM[lost_N].argmax(1)] = True
    kept_NM[store.split != 0] = True
    return with_presence(store, {name: kept_NM[:, m] for m, name in enumerate(store.modalities)})


def never_together(store: EmbeddingStore, *, seed: int, pair: Sequence[str]) -> EmbeddingStore:
    """No item of the training split has both modalities of `pair`: one of the two, at random, is dropped."""
    for name in pair:
        check_choice("each of pair", name, store.modalities)
    first, second = pair
    rng = np.random.default_rng(seed)
    both_N = store.present(first) & store.present(second) & (store.split == 0)
    keeps_first_N = rng.random(len(both_N)) < 0.5
    return with_presence(store, {first: ~both_N | keeps_first_N, second: ~both_N | ~keeps_first_N})


CHANGES: dict[str, Callable[..., EmbeddingStore]] = {"drop_entries": drop_entries, "no_overlap": never_together}


def describe(change: DataTransform | None) -> dict[str, Any] | None:
    """A change as JSON."""
    return None if change is None else {"name": change.name, "arguments": dict(change.arguments)}
