"""Masks of living items, which are read from the catalog when they are first used.

Shapes: `n` items of a part, `R` removed items.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from unialign.index._snapshot import Part

Masks = dict[int, NDArray[np.bool_]]


class LazyMasks(Mapping[int, NDArray[np.bool_]]):
    """Number of a part -> (n,) mask, for parts with removed items.

    An index with many removed items still opens in milliseconds, since only searches need the masks.
    """

    def __init__(self, load: Callable[[], Masks]) -> None:
        self._load = load
        self._masks: Masks | None = None

    @property
    def is_loaded(self) -> bool:
        """Whether the masks were read."""
        return self._masks is not None

    def _all(self) -> Masks:
        if self._masks is None:
            self._masks = self._load()
        return self._masks

    def __getitem__(self, part: int) -> NDArray[np.bool_]:
        return self._all()[part]

    def __iter__(self) -> Iterator[int]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


def updated_masks(
    masks: Mapping[int, NDArray[np.bool_]], parts: Sequence[Part], removed_R2: NDArray[np.int64]
) -> Masks:
    """Return the masks of the parts after the removal of items at (part, place)."""
    found = {part.id: masks[part.id] for part in parts if part.id in masks}
    by_id = {part.id: part for part in parts}
    for number in np.unique(removed_R2[:, 0]).tolist():
        if number in by_id:
            mask_n = found[number].copy() if number in found else np.ones(by_id[number].items, np.bool_)
            mask_n[removed_R2[removed_R2[:, 0] == number, 1]] = False
            found[number] = mask_n
    return found
