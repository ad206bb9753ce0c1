"""Match the rows of two versions of the same embeddings, and read them side by side in blocks of bounded memory.

Shapes: `N` items of a version, `P` items that both versions have, `D` dimension, `b` rows of a block.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign._plain_text import join_words
from unialign.data import RowReader
from unialign.errors import DataError
from unialign.readers import Collection, MatchedRows, Modality

Array = NDArray[Any]

# Number of bytes of a block in float64, for each version; blocks should fit into the cache of a core.
_BLOCK_BYTES = 1 << 21


@dataclass(frozen=True)
class MatchedItems:
    """Positions of the items that both versions have; `ids_P` is None if the rows were matched by their order."""

    old_P: NDArray[np.int64]
    new_P: NDArray[np.int64]
    ids_P: Array | None
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.old_P)

    def select(self, chosen: Array) -> "MatchedItems":
        ids_P = None if self.ids_P is None else self.ids_P[chosen]
        return MatchedItems(self.old_P[chosen], self.new_P[chosen], ids_P, self.notes)


def match_items(old: Collection, new: Collection) -> MatchedItems:
    """Match the items by ids, or by the order of the rows if a version has no ids."""
    old_ids, new_ids = old.values.get("ids"), new.values.get("ids")
    if old_ids is None or new_ids is None:
        if old.items != new.items:
            raise DataError(
                f"{old.name} has {old.items:,} rows and {new.name} has {new.items:,}, and they cannot be matched by "
                "ids; store the array `ids` in both files, or specify another array with --id NAME"
            )
        note = (
            () if old_ids is None and new_ids is None else ("only one version has ids, so rows are matched by order",)
        )
        every_P = np.arange(old.items)
        ids = new_ids if old_ids is None else old_ids
        return MatchedItems(every_P, every_P, None if ids is None else ids.astype(np.str_), note)
    left_N, right_N = old_ids.astype(np.str_), new_ids.astype(np.str_)
    if np.array_equal(left_N, right_N):
        return MatchedItems(np.arange(old.items), np.arange(new.items), left_N, ())
    for name, ids_N in ((old.name, left_N), (new.name, right_N)):
        if len(np.unique(ids_N)) < len(ids_N):
            raise DataError(
                f"ids repeat in {name}, and the two versions list them differently, so rows cannot be matched; choose "
                "unique ids with --id NAME"
            )
    common, old_P, new_P = np.intersect1d(left_N, right_N, assume_unique=True, return_indices=True)
    if not len(common):
        raise DataError(
            f"the ids of {old.name} ({left_N[0]}, ...) and {new.name} ({right_N[0]}, ...) have no common value; choose "
            "other ids with --id NAME"
        )
    order_P = np.argsort(old_P)
    notes = tuple(
        f"{count:,} items are only in {name} and are not compared"
        for name, count in ((old.name, old.items - len(common)), (new.name, new.items - len(common)))
        if count
    )
    return MatchedItems(old_P[order_P], new_P[order_P], common[order_P], notes)


def match_modalities(old: Collection, new: Collection) -> dict[str, tuple[Modality, Modality]]:
    """Match modalities by name; if each version has a single modality, the names may differ."""
    if len(old.modalities) == len(new.modalities) == 1:
        ((name, after),) = new.modalities.items()
        (before,) = old.modalities.values()
        return {name: (before, after)}
    found = {name: (old.modalities[name], new.modalities[name]) for name in old.modalities if name in new.modalities}
    if not found:
        raise DataError(
            f"the two versions have no modality of the same name: {old.name} has {join_words(old.modalities)}, and "
            f"{new.name} has {join_words(new.modalities)}; rename one with NAME=FILE, or choose one with --modalities"
        )
    return found


def paired_blocks(
    old: Modality, new: Modality, matched: MatchedItems
) -> Iterator[tuple[int, NDArray[np.floating[Any]], NDArray[np.floating[Any]]]]:
    widest = max(old.rows.shape[1], new.rows.shape[1])
    step = max(1, _BLOCK_BYTES // (8 * widest))
    before, after = _row_source(old, matched.old_P), _row_source(new, matched.new_P)
    for start in range(0, len(matched), step):
        count = min(step, len(matched) - start)
        yield start, before.read(count), after.read(count)


def _row_source(modality: Modality, positions_P: NDArray[np.int64]) -> "_Stream | _Gather":
    """Stream the file if the items are in the order of its rows."""
    in_order = len(positions_P) == modality.rows.shape[0] and bool((np.diff(positions_P) == 1).all())
    if in_order and not isinstance(modality.rows, MatchedRows):
        return _Stream(modality)
    return _Gather(modality, positions_P)


class _Stream:
    def __init__(self, modality: Modality) -> None:
        self._chunks = iter(modality.rows.chunks())
        self._rest: Array | None = None

    def read(self, count: int) -> Array:
        parts, missing = [], count
        while missing:
            chunk_cD = next(self._chunks) if self._rest is None else self._rest
            # A chunk may be overwritten when the next one is read.
            parts.append(chunk_cD[:missing].copy())
            self._rest = chunk_cD[missing:] if len(chunk_cD) > missing else None
            missing -= len(parts[-1])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


class _Gather:
    def __init__(self, modality: Modality, positions_P: NDArray[np.int64]) -> None:
        self._reader = RowReader(np.asarray(modality.load()))
        self._positions_P, self._start = positions_P, 0

    def read(self, count: int) -> Array:
        found = self._reader.read(self._positions_P[self._start : self._start + count])
        self._start += count
        return found if found.dtype.kind == "f" else found.astype(np.float32)
