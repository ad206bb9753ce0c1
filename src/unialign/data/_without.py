"""Copy a store without some of its items.

Shapes: `N` items, `K` remaining items.
"""

import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unialign._checks import suggestion
from unialign.data._item_identity import unique_keys
from unialign.data._store import EmbeddingStore
from unialign.data._thumbnail_archive import thumbnail_archive
from unialign.data._thumbnails import THUMBNAILS, Thumbnails
from unialign.errors import ConfigError

__all__ = ["without_items"]

_TABLE = "items.jsonl"


def without_items(store: EmbeddingStore, keys: Sequence[str]) -> EmbeddingStore:
    """Return the items of a store that are not listed, as a new store in memory; `save` writes it.

    The other items keep their order, ids, groups, labels, split, names and thumbnails, and the encoders of the columns.
    Other assets, which may belong to removed items, are left out.

    Args:
        store: the store.
        keys: keys of items as in `Index` and in the lists of `unialign diagnose --fix-list`: the keys of the item
            table, text ids or names, if they are unique; else row numbers as text.

    Raises:
        ConfigError: a key is unknown, or no item is left.
    """
    known = {key: row for row, key in enumerate(unique_keys(store))}
    if isinstance(keys, str):
        raise ConfigError(f"keys must be a list, got the string {keys!r}; pass [{keys!r}]")
    for key in keys:
        if key not in known:
            raise ConfigError(f"the store {store.name!r} has no item {key!r}{suggestion(str(key), list(known))}")
    removed = {known[key] for key in keys}
    kept_K = np.array([row for row in range(store.items) if row not in removed], np.int64)
    if not len(kept_K):
        raise ConfigError(f"all {store.items:,} items are listed, so no item is left")
    texts = store.keys
    return EmbeddingStore.from_arrays(
        {name: store.array(name)[kept_K] for name in store.columns},
        name=store.name,
        present={name: store.present(name)[kept_K] for name in store.columns},
        ids=[texts[row] for row in kept_K] if texts is not None else store.ids[kept_K] if store.has_ids else None,
        groups=store.groups[kept_K],
        labels=store.labels[kept_K],
        label_names=store.label_names,
        split=store.split[kept_K],
        names=[store.item_names[row] for row in kept_K] if store.has_names else None,
        default_modalities=store.modalities,
        assets=_assets(store, kept_K),
        provenance=store.provenance,
    )


def _assets(store: EmbeddingStore, kept_K: NDArray[np.int64]) -> dict[str, bytes]:
    found = {}
    if _TABLE in store.assets:
        lines = store.asset(_TABLE).splitlines(keepends=True)
        found[_TABLE] = b"".join(lines[row] for row in kept_K)
    if "texts.json" in store.assets:
        found |= _texts(store, kept_K)
    if THUMBNAILS in store.assets:
        place = {int(row): number for number, row in enumerate(kept_K)}
        images = []
        with store.open_asset(THUMBNAILS) as file:
            thumbnails = Thumbnails(file, THUMBNAILS)
            for modality, row in thumbnails:
                image = thumbnails.read(modality, row) if row in place else None
                if image is not None:
                    images.append((f"{modality}/{place[row]}.{image[1]}", image[0]))
        found[THUMBNAILS] = b"".join(thumbnail_archive(images))
    return found


def _texts(store: EmbeddingStore, kept_K: NDArray[np.int64]) -> dict[str, bytes]:
    """Select the kept items in all lists of N values, including lists by language."""

    def select(value: object) -> object:
        if isinstance(value, dict):
            return {name: select(part) for name, part in value.items()}
        return [value[row] for row in kept_K] if isinstance(value, list) and len(value) == store.items else value

    chosen = select(json.loads(store.asset("texts.json")))
    return {"texts.json": json.dumps(chosen, ensure_ascii=False).encode()}
