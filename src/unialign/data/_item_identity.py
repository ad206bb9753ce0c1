"""Find the values that identify the items of a store in other stores: ids, and the keys of an item table.

`EmbeddingStore.ids` are codes for text ids. Codes of two stores must not be compared.

Shapes: `N` items.
"""

import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unialign.data._store import EmbeddingStore
from unialign.errors import DataError

__all__ = ["are_row_numbers", "item_ids", "item_keys", "unique_keys"]

# The item table in a store that `unialign.embed` wrote.
_TABLE = "items.jsonl"


def item_ids(store: EmbeddingStore) -> tuple[str, ...] | NDArray[np.int64] | None:
    """Return N text ids, or (N,) integer ids, that can be compared with the ids of other stores.

    If the store has no ids, the keys of the item table that was encoded are returned, or None if there are no keys
    other than row numbers.

    Raises:
        DataError: the stored item table is damaged.
    """
    if store.keys is not None:
        return store.keys
    if store.has_ids:
        return store.ids
    keys = item_keys(store)
    return None if keys is None or are_row_numbers(keys) else keys


def item_keys(store: EmbeddingStore) -> tuple[str, ...] | None:
    """Return the N unique keys of the item table that was encoded, or None if the store is not from an item table.

    Raises:
        DataError: the stored item table is damaged.
    """
    if _TABLE not in store.assets or store.provenance.get("made_by") != "unialign.embed":
        return None
    found: tuple[str, ...] = store._cached("item keys", lambda: _read(store))
    return found


def unique_keys(store: EmbeddingStore) -> list[str]:
    """Return N unique keys: the keys of the item table, text ids or names, whichever is found first and unique; else
    row numbers.

    Raises:
        DataError: the stored item table is damaged.
    """
    for found in (item_keys(store) or (), store.keys or (), store.item_names if store.has_names else ()):
        if len(found) == store.items == len(set(found)) and all(found) and not are_row_numbers(found):
            return list(found)
    return [str(row) for row in range(store.items)]


def are_row_numbers(keys: Sequence[str]) -> bool:
    """Whether the keys are "0", "1", ..., as in tables whose source has no names of items."""
    return all(key == str(row) for row, key in enumerate(keys))


def _read(store: EmbeddingStore) -> tuple[str, ...]:
    keys: list[str] = []
    try:
        with store.open_asset(_TABLE) as file:
            for line in file:
                keys.append(str(json.loads(line)["id"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(store, f"line {len(keys) + 1}: {type(error).__name__}: {error}") from None
    if len(keys) != store.items:
        raise _damaged(store, f"{len(keys):,} items instead of {store.items:,}")
    return tuple(keys)


def _damaged(store: EmbeddingStore, problem: str) -> DataError:
    return DataError(f"the item table of the store {store.name!r} ({_TABLE}) is damaged: {problem}; embed it again")
