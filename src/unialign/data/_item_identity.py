"""Find the values that identify the items of a store in other stores: ids, and the keys of an item table.

`EmbeddingStore.ids` are codes for text ids, and for every table that `unialign.embed` has encoded. Codes of two stores
must not be compared.

Shapes: `N` items.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.data._store import EmbeddingStore
from unialign.errors import DataError

__all__ = ["are_row_numbers", "item_ids", "item_keys"]

# The item table in a store that `unialign.embed` wrote.
_TABLE = "items.jsonl"


def item_ids(store: EmbeddingStore) -> tuple[str, ...] | NDArray[np.int64] | None:
    """Return N text ids, or (N,) integer ids, whose values can be compared with those of other stores.

    An item of an encoded table without an id has its key as its id. None: the store has no ids, and its items have no
    keys, or only row numbers.

    Raises:
        DataError: the stored item table is damaged.
    """
    if store.keys is not None:
        return store.keys
    table = _table(store)
    if table is not None:
        keys, ids = table
        given = tuple(own or key for key, own in zip(keys, ids, strict=True))
        return None if not any(ids) and are_row_numbers(keys) else given
    return store.ids if store.has_ids else None


def item_keys(store: EmbeddingStore) -> tuple[str, ...] | None:
    """Return the N unique keys of the item table that was encoded, or None if the store is not from an item table.

    Raises:
        DataError: the stored item table is damaged.
    """
    table = _table(store)
    return None if table is None else table[0]


def are_row_numbers(keys: Sequence[str]) -> bool:
    """Whether the keys are "0", "1", ..., as for tables whose source names no items."""
    return all(key == str(row) for row, key in enumerate(keys))


def _table(store: EmbeddingStore) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Return the keys and the values of `ids` of the encoded table, "" for an item without one."""
    if _TABLE not in store.assets or store.provenance.get("made_by") != "unialign.embed":
        return None
    found: tuple[tuple[str, ...], tuple[str, ...]] = store._cached("item table", lambda: _read(store))
    return found


def _read(store: EmbeddingStore) -> tuple[tuple[str, ...], tuple[str, ...]]:
    keys: list[str] = []
    ids: list[str] = []
    try:
        with store.open_asset(_TABLE) as file:
            for line in file:
                record: Any = json.loads(line)
                keys.append(str(record["id"]))
                ids.append(str(record.get("ids") or ""))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(store, f"line {len(keys) + 1}: {type(error).__name__}: {error}") from None
    if len(keys) != store.items:
        raise _damaged(store, f"{len(keys):,} items instead of {store.items:,}")
    return tuple(keys), tuple(ids)


def _damaged(store: EmbeddingStore, problem: str) -> DataError:
    return DataError(f"the item table of the store {store.name!r} ({_TABLE}) is damaged: {problem}; embed it again")
