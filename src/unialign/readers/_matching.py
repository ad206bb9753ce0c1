"""Match files by row ids, and read masks and per-item values in item order."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unialign.errors import DataError, ShapeError
from unialign.readers._entry import ArrayEntry
from unialign.readers._keys import ITEM_KEYS, MASK_PREFIXES, CollectedFile, is_item_key, mask_prefix
from unialign.readers._naming import Matrices
from unialign.readers._rows import Array

__all__ = ["item_values", "match_ids", "presence_masks", "unused_masks"]


def match_ids(sources: Sequence[CollectedFile], items: int) -> None:
    """Set the row order of each source whose ids are a permutation of the unique ids of the first one."""
    first: Array | None = None
    for source in sources:
        entry = source.file.entries.get("ids")
        if entry is None or entry.shape != (items,) or entry.kind == "":
            continue
        values = entry.load()
        if first is None:
            first, sorted_N = values, np.argsort(values, kind="stable")
            if len(np.unique(first)) < items:
                return
        elif first.dtype.kind == values.dtype.kind and not np.array_equal(first, values):
            own_N = np.argsort(values, kind="stable")
            if np.array_equal(first[sorted_N], values[own_N]):
                source.order_N = np.empty(items, np.int64)
                source.order_N[sorted_N] = own_N


def presence_masks(sources: Sequence[CollectedFile], matrices: Matrices, items: int) -> dict[str, NDArray[np.bool_]]:
    """Return modality -> (N,) bool for modalities with a mask; several masks of one modality are combined by `and`."""
    masks: dict[str, NDArray[np.bool_]] = {}
    for source in sources:
        for key, entry in source.file.entries.items():
            prefix = mask_prefix(key)
            if prefix is None:
                continue
            # In a renamed file, the single mask may still use the original key.
            key = key.removeprefix(prefix)
            own = [name for name, (other, matrix) in matrices.items() if other is source and matrix.key == key]
            name = own[0] if own else source.given or key
            if name not in matrices:
                continue
            if entry.shape != (items,) or entry.kind != "b":
                raise ShapeError(
                    f"{source.place(entry)} is {entry.dtype} of shape {entry.shape}; expected bool of shape ({items},)"
                )
            masks[name] = masks.get(name, True) & np.asarray(source.load(entry), dtype=np.bool_)
            if not masks[name].any():
                raise DataError(f"{source.place(entry)} marks every row of {name!r} as absent; omit the modality")
    return masks


def unused_masks(sources: Sequence[CollectedFile], matrices: Matrices) -> list[tuple[CollectedFile, ArrayEntry]]:
    """Return masks without a matching array, such as misspelled ones, which would leave absent rows present."""
    keys = {key for source in sources for key in source.file.entries} | set(matrices)
    return [
        (source, entry)
        for source in sources
        for key, entry in source.file.entries.items()
        if source.given is None and mask_prefix(key) and key[len(MASK_PREFIXES[0]) :] not in keys
    ]


def item_values(sources: Sequence[CollectedFile], key: str, items: int) -> Array | None:
    """Return the stored (N,) values of a key such as `ids`, which must agree across files; None if absent."""
    found: tuple[CollectedFile, Array] | None = None
    for source in sources:
        entry = source.file.entries.get(key)
        if entry is None or not is_item_key(key, entry):
            continue
        if entry.shape != (items,) or entry.kind == "" or entry.kind not in ITEM_KEYS[key]:
            what = entry.skipped or f"{entry.dtype} of shape {entry.shape}"
            raise ShapeError(f"{source.place(entry)} is {what}; expected integers or text, ({items},)")
        values = source.load(entry)
        if found is None:
            found = (source, values)
        elif not np.array_equal(found[1], values):
            hint = "row i of every file must be the same item"
            if found[1].dtype == values.dtype and np.array_equal(np.sort(found[1]), np.sort(values)):
                hint = "they have the same values in another order, but with repeats; sort both files by them"
            raise DataError(f"{key} in {found[0].file.label} and {source.file.label} differ: {hint}")
    return None if found is None else found[1]
