"""Match the items of two stores by the values of their ids, or by the keys of their items.

Shapes: `N` and `M` items of the stores, `n` items of both.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unialign.data import EmbeddingStore, are_row_numbers, item_ids, item_keys
from unialign.errors import DataError

__all__ = ["joined_rows"]

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]
# Text ids, or integers.
Values = Sequence[str] | Sequence[int]


def joined_rows(old: EmbeddingStore, new: EmbeddingStore, old_N: Mask, new_M: Mask) -> tuple[Rows, Rows] | None:
    """Return the (n,) rows of the items that are present in both stores, in the order of `old`.

    Items are joined by their ids. If the ids of a store repeat, or there are none, the items of two stores that were
    embedded from item tables are joined by their keys. Integer ids of a store in which none are stored are its row
    numbers, if those of the other store are integers. None: neither store has ids or keys of items.

    Raises:
        DataError: the ids of a store repeat, or only one store has text ids, or no id is in both.
    """
    ids = item_ids(old), item_ids(new)
    keys = item_keys(old), item_keys(new)
    if keys[0] is not None and keys[1] is not None and (ids[0] is None or ids[1] is None):
        # Row numbers of two tables may differ in meaning, but a part of a table keeps the numbers of the whole.
        numbered = are_row_numbers(keys[0]) and are_row_numbers(keys[1])
        if not numbered:
            return _matched(keys[0], keys[1], old_N, new_M)
    if ids[0] is None and ids[1] is None:
        return None
    values = _values(old, ids[0]), _values(new, ids[1])
    if isinstance(ids[0], tuple) is not isinstance(ids[1], tuple):
        texts, other = ("old", "new") if isinstance(ids[0], tuple) else ("new", "old")
        what = "none, or only row numbers" if (ids[0] is None or ids[1] is None) else "integers"
        raise DataError(
            f"{texts!r} has text ids, but {other!r} has {what}; write {other!r} with the same ids (`ids=`), or pass "
            "arrays of the same items in the same order"
        )
    found = [_repeated(own, present_N) for own, present_N in zip(values, (old_N, new_M), strict=True)]
    repeated = [(name, own[0]) for name, own in zip(("old", "new"), found, strict=True) if own]
    if repeated and keys[0] is not None and keys[1] is not None:
        return _of_equal_ids(values, _matched(keys[0], keys[1], old_N, new_M))
    if repeated:
        name, value = repeated[0]
        raise DataError(
            f"id {value!r} repeats in {name!r}, so ids do not identify items; write both stores with unique ids, or "
            "pass arrays of the same items in the same order"
        )
    return _matched(*values, old_N, new_M)


def _values(store: EmbeddingStore, ids: tuple[str, ...] | Rows | None) -> Values:
    if isinstance(ids, tuple):
        return ids
    found: list[int] = (store.ids if ids is None else ids).tolist()
    return found


def _repeated(values: Values, present_N: Mask) -> list[str | int]:
    """Return the first id that two present items share, or an empty list."""
    seen: set[str | int] = set()
    for row in np.flatnonzero(present_N).tolist():
        value = values[row]
        if value in seen:
            return [value]
        seen.add(value)
    return []


def _matched(old: Values, new: Values, old_N: Mask, new_M: Mask) -> tuple[Rows, Rows]:
    place: dict[str | int, int] = {new[row]: row for row in np.flatnonzero(new_M).tolist()}
    rows = np.flatnonzero(old_N).tolist()
    pairs = [(row, place[old[row]]) for row in rows if old[row] in place]
    if not pairs:
        raise DataError(
            f"'old' and 'new' have no ids in common, such as {old[0]!r} in 'old' and {new[0]!r} in 'new'; pass stores "
            "of the same items"
        )
    rows_n2 = np.array(pairs, np.int64)
    return rows_n2[:, 0], rows_n2[:, 1]


def _of_equal_ids(values: tuple[Values, Values], rows: tuple[Rows, Rows]) -> tuple[Rows, Rows]:
    """Check that rows with equal keys have equal ids, since keys that are row numbers may differ in meaning between
    tables.
    """
    for row, new_row in zip(*(rows_n.tolist() for rows_n in rows), strict=True):
        if values[0][row] != values[1][new_row]:
            raise DataError(
                f"row {row} of 'old' and row {new_row} of 'new' have the same key, but the ids {values[0][row]!r} and "
                f"{values[1][new_row]!r}, and ids repeat, so they do not identify items; pass stores with unique ids"
            )
    return rows
