"""Read presence masks and per-item values in item order."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unialign.errors import DataError, ShapeError
from unialign.readers._entry import ArrayEntry
from unialign.readers._keys import ITEM_KEYS, MASK_PREFIXES, CollectedFile, is_item_key, mask_prefix
from unialign.readers._naming import Matrices
from unialign.readers._rows import Array

__all__ = ["as_text", "item_values", "presence_masks", "unused_masks"]


def presence_masks(sources: Sequence[CollectedFile], matrices: Matrices, items: int) -> dict[str, NDArray[np.bool_]]:
    """Combine several masks of a modality by AND."""
    masks: dict[str, NDArray[np.bool_]] = {}
    for source in sources:
        for key, entry in source.file.entries.items():
            prefix = mask_prefix(key)
            if prefix is None:
                continue
            # If the file was renamed, its single mask may still use the original key.
            key = key.removeprefix(prefix)
            own = [name for name, (other, matrix) in matrices.items() if other is source and matrix.key == key]
            name = own[0] if own else source.given or key
            if name not in matrices:
                continue
            rows = items if source.order_N is None else matrices[name][1].shape[0] if own else None
            if entry.kind != "b" or len(entry.shape) != 1 or (rows is not None and entry.shape != (rows,)):
                raise ShapeError(
                    f"{source.place(entry)} is {entry.dtype} of shape {entry.shape}; expected bool of shape "
                    f"({rows or items},)"
                )
            masks[name] = masks.get(name, True) & np.asarray(source.load(entry), dtype=np.bool_)
            if not masks[name].any():
                raise DataError(f"{source.place(entry)} marks every row of {name!r} as absent; omit the modality")
    return masks


def unused_masks(sources: Sequence[CollectedFile], matrices: Matrices) -> list[tuple[CollectedFile, ArrayEntry]]:
    """Return masks that belong to no array. If a misspelled mask were ignored, absent rows would be treated as
    present.
    """
    keys = {key for source in sources for key in source.file.entries} | set(matrices)
    return [
        (source, entry)
        for source in sources
        for key, entry in source.file.entries.items()
        if source.given is None and mask_prefix(key) and key[len(MASK_PREFIXES[0]) :] not in keys
    ]


def item_values(sources: Sequence[CollectedFile], key: str, items: int) -> Array | None:
    """Return the values of a key, which must agree across files, or None if no file has the key."""
    found: tuple[CollectedFile, Array] | None = None
    known_N = np.zeros(items, np.bool_)
    for source in sources:
        entry = source.file.entries.get(key)
        if entry is None or not is_item_key(key, entry):
            continue
        if entry.dtype == "object" and key != "ids":
            continue  # the entry is listed as ignored
        rows = items if source.order_N is None else None
        if len(entry.shape) != 1 or (rows is not None and entry.shape[0] != rows) or entry.kind not in ITEM_KEYS[key]:
            raise ShapeError(_problem(source, entry, key, items))
        values, has_N = source.load(entry), np.ones(items, np.bool_)
        if source.order_N is not None:
            has_N = source.order_N >= 0
        if found is None:
            found = (source, values)
        else:
            found = (found[0], _merged(key, found, known_N, (source, values), has_N))
        known_N |= has_N
    if found is not None and not known_N.all() and key in ("groups", "split"):
        missing = int((~known_N).sum())
        raise DataError(f"{key} is missing for {missing:,} of {items:,} items; store it in every file, or in none")
    return None if found is None else found[1]


def _merged(
    key: str, first: tuple[CollectedFile, Array], known_N: Array, other: tuple[CollectedFile, Array], has_N: Array
) -> Array:
    (source, values), (second, others) = first, other
    if {values.dtype.kind, others.dtype.kind} & set("US") and values.dtype.kind != others.dtype.kind:
        values, others = as_text(values), as_text(others)
    both_N = known_N & has_N
    if not np.array_equal(values[both_N], others[both_N]):
        row = int(np.flatnonzero(both_N)[(values[both_N] != others[both_N]).argmax()])
        raise DataError(
            f"{key} in {source.file.label} and {second.file.label} differ: item {row} has {values[row]!r:.60} and "
            f"{others[row]!r:.60}; row i of every file must be the same item"
        )
    return np.where(known_N, values, others)


def as_text(values_N: Array) -> Array:
    return np.char.decode(values_N, "utf-8", "replace") if values_N.dtype.kind == "S" else values_N.astype(np.str_)


def _problem(source: CollectedFile, entry: ArrayEntry, key: str, items: int) -> str:
    place = source.place(entry)
    if entry.dtype == "object":
        return (
            f"{place} holds Python objects (a pickle), which are never read; expected integers or text; save "
            f"{key}.astype(str), or choose other ids with --id NAME"
        )
    hint = f"; save {key}.astype(int)" if entry.kind == "f" and len(entry.shape) == 1 else ""
    what = entry.skipped or f"{entry.dtype} of shape {entry.shape}"
    return f"{place} is {what}; expected integers or text of shape ({items},){hint}"
