"""Match files by row ids, and read masks and per-item values in item order."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from unialign.errors import DataError, ShapeError
from unialign.readers._entry import ArrayEntry, EmbeddingFile
from unialign.readers._keys import ITEM_KEYS, MASK_PREFIXES, is_item_key, mask_prefix, place
from unialign.readers._naming import Matrices, NamedFiles
from unialign.readers._rows import Array

__all__ = ["Orders", "item_values", "match_ids", "presence_masks", "unused_masks"]

# `id` of a file -> (N,) file row of each item.
Orders = Mapping[int, NDArray[np.int64]]


def match_ids(files: NamedFiles, items: int) -> Orders:
    """Return the row order of each file whose ids are a permutation of the unique ids of the first file."""
    orders: dict[int, NDArray[np.int64]] = {}
    first: Array | None = None
    for _, file in files:
        entry = file.entries.get("ids")
        if entry is None or entry.shape != (items,) or entry.kind == "":
            continue
        values = entry.load()
        if first is None:
            first, sorted_N = values, np.argsort(values, kind="stable")
            if len(np.unique(first)) < items:
                return {}
        elif first.dtype.kind == values.dtype.kind and not np.array_equal(first, values):
            own_N = np.argsort(values, kind="stable")
            if np.array_equal(first[sorted_N], values[own_N]):
                order_N = np.empty(items, np.int64)
                order_N[sorted_N] = own_N
                orders[id(file)] = order_N
    return orders


def presence_masks(files: NamedFiles, matrices: Matrices, items: int, orders: Orders) -> dict[str, NDArray[np.bool_]]:
    """Return modality -> (N,) bool for modalities with a mask; several masks of one modality are combined by `and`."""
    masks: dict[str, NDArray[np.bool_]] = {}
    for given, file in files:
        for key, entry in file.entries.items():
            prefix = mask_prefix(key)
            if prefix is None:
                continue
            # In a renamed file, the single mask may still use the original key.
            key = key.removeprefix(prefix)
            own = [name for name, (other, matrix) in matrices.items() if other is file and matrix.key == key]
            name = own[0] if own else given or key
            if name not in matrices:
                continue
            if entry.shape != (items,) or entry.kind != "b":
                raise ShapeError(
                    f"{place(file, entry)} is {entry.dtype} of shape {entry.shape}; expected bool of shape ({items},)"
                )
            masks[name] = masks.get(name, True) & np.asarray(_in_order(file, entry, orders), dtype=np.bool_)
            if not masks[name].any():
                raise DataError(f"{place(file, entry)} marks every row of {name!r} as absent; omit the modality")
    return masks


def unused_masks(files: NamedFiles, matrices: Matrices) -> list[tuple[EmbeddingFile, ArrayEntry]]:
    """Return masks without a matching array, such as misspelled ones, which would leave absent rows present."""
    keys = {key for _, file in files for key in file.entries} | set(matrices)
    return [
        (file, entry)
        for given, file in files
        for key, entry in file.entries.items()
        if given is None and mask_prefix(key) and key[len(MASK_PREFIXES[0]) :] not in keys
    ]


def item_values(files: NamedFiles, key: str, items: int, orders: Orders) -> Array | None:
    """Return the stored (N,) values of a key such as `ids`, which must agree across files; None if absent."""
    found: tuple[EmbeddingFile, Array] | None = None
    for _, file in files:
        entry = file.entries.get(key)
        if entry is None or not is_item_key(key, entry):
            continue
        if entry.shape != (items,) or entry.kind == "" or entry.kind not in ITEM_KEYS[key]:
            what = entry.skipped or f"{entry.dtype} of shape {entry.shape}"
            raise ShapeError(f"{place(file, entry)} is {what}; expected integers or text, ({items},)")
        values = _in_order(file, entry, orders)
        if found is None:
            found = (file, values)
        elif not np.array_equal(found[1], values):
            hint = "row i of every file must be the same item"
            if found[1].dtype == values.dtype and np.array_equal(np.sort(found[1]), np.sort(values)):
                hint = "they have the same values in another order, but with repeats; sort both files by them"
            raise DataError(f"{key} in {found[0].label} and {file.label} differ: {hint}")
    return None if found is None else found[1]


def _in_order(file: EmbeddingFile, entry: ArrayEntry, orders: Orders) -> Array:
    order_N = orders.get(id(file))
    return entry.load() if order_N is None else entry.load()[order_N]
