"""Transforms of the training data, which arms refer to by name, since arms are sent to worker processes.

Shapes: `N` items, `M` modalities.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from research._plan import DataTransform
from unialign._checks import check_choice, check_number
from unialign.data import EmbeddingStore

__all__ = ["TRANSFORMS", "transformed", "with_presence"]


def transformed(store: EmbeddingStore, transform: DataTransform | None, seed: int) -> EmbeddingStore:
    if transform is None:
        return store
    check_choice("transform", transform.name, TRANSFORMS)
    return TRANSFORMS[transform.name](store, seed=seed, **transform.arguments)


def with_presence(store: EmbeddingStore, present: Mapping[str, NDArray[np.bool_]]) -> EmbeddingStore:
    return EmbeddingStore.from_arrays(
        {name: store.array(name) for name in store.modalities},
        present={name: store.present(name) & present.get(name, True) for name in store.modalities},
        ids=store.ids,
        groups=store.groups,
        labels=store.labels,
        label_names=store.label_names or None,
        split=store.split,
        names=store.item_names,
        name=store.name,
    )


def drop_entries(store: EmbeddingStore, *, seed: int, fraction: float) -> EmbeddingStore:
    """An item that would lose all entries keeps a random one, so that the number of items does not change."""
    check_number("fraction", fraction, "in [0, 1)", lambda x: 0 <= x < 1)
    rng = np.random.default_rng(seed)
    present_NM = np.stack([store.present(name) for name in store.modalities], 1)
    kept_NM = present_NM & (rng.random(present_NM.shape) >= fraction)
    priority_NM = np.where(present_NM, rng.random(present_NM.shape), -1.0)
    lost_N = present_NM.any(1) & ~kept_NM.any(1)
    kept_NM[lost_N, priority_NM[lost_N].argmax(1)] = True
    kept_NM[store.split != 0] = True
    return with_presence(store, {name: kept_NM[:, m] for m, name in enumerate(store.modalities)})


def no_overlap(store: EmbeddingStore, *, seed: int, pair: Sequence[str]) -> EmbeddingStore:
    for name in pair:
        check_choice("each of pair", name, store.modalities)
    first, second = pair
    rng = np.random.default_rng(seed)
    both_N = store.present(first) & store.present(second) & (store.split == 0)
    keeps_first_N = rng.random(len(both_N)) < 0.5
    return with_presence(store, {first: ~both_N | keeps_first_N, second: ~both_N | ~keeps_first_N})


TRANSFORMS: dict[str, Callable[..., EmbeddingStore]] = {"drop_entries": drop_entries, "no_overlap": no_overlap}
