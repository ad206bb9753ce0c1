"""Create random splits that keep groups together.

Shapes: `N` items, `G` groups.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unialign.data._layout import SPLITS
from unialign.errors import ConfigError, ShapeError

__all__ = ["random_split"]


def random_split(
    items: int,
    *,
    fractions: Sequence[float] = (0.7, 0.1, 0.2),
    groups: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    seed: int = 0,
) -> NDArray[np.int8]:
    """Assign items to train, val and test; equal arguments produce equal splits on every platform.

    The sizes of the splits, and with `labels` the sizes within each label, are accurate to about the size of the
    largest group. A group has the label of its first item, and -1 is treated as a label.

    Args:
        items: N.
        fractions: fractions of train, val and test; they must sum to 1.
        groups: (N,) sortable values; items of a group share a split. Default: one group per item.
        labels: (N,) sortable values to stratify by.
        seed: random seed, at least 0.

    Returns:
        (N,) int8 codes for `EmbeddingStore.write(split=...)`: 0 = train, 1 = val, 2 = test.

    Raises:
        ConfigError: `items`, `fractions` or `seed` is out of range.
        ShapeError: `groups` or `labels` do not have shape (N,).
    """
    checked = _check_fractions(fractions)
    if not (isinstance(items, int | np.integer) and isinstance(seed, int | np.integer)) or items < 1 or seed < 0:
        raise ConfigError(f"items must be an integer >= 1 and seed an integer >= 0, got items={items} and seed={seed}")
    # First item and size of each group, (G,), and group of each item, (N,).
    _, first_G, group_N, size_G = np.unique(
        _per_item(groups, "groups", items), return_index=True, return_inverse=True, return_counts=True
    )
    if labels is None:
        stratum_G = np.zeros(len(first_G), dtype=np.int64)
    else:
        stratum_G = np.unique(_per_item(labels, "labels", items), return_inverse=True)[1][first_G]
    # NumPy guarantees that the raw bits of PCG64 never change.
    random_G = np.random.PCG64(seed).random_raw(len(first_G))
    # Within each label, assign large groups first, so that small groups can balance the sizes afterwards.
    order_G = np.lexsort((random_G, -size_G, stratum_G))
    code_G = np.empty(len(first_G), dtype=np.int8)
    code_G[order_G] = _apportion(size_G[order_G].tolist(), checked)
    return code_G[group_N]


def _apportion(sizes: list[int], fractions: tuple[float, ...]) -> list[int]:
    """Assign each group to the split that is furthest below its fraction, so every prefix is balanced."""
    counts = [0] * len(fractions)
    parts = [part for part, fraction in enumerate(fractions) if fraction > 0]
    codes, total = [], 0
    for size in sizes:
        total += size
        # Round, so that ties go to the first split regardless of floating-point errors.
        chosen = max(parts, key=lambda part: round(fractions[part] * total - counts[part], 6))
        counts[chosen] += size
        codes.append(chosen)
    return codes


def _check_fractions(fractions: Sequence[float]) -> tuple[float, ...]:
    found = tuple(float(fraction) for fraction in fractions)
    if len(found) != len(SPLITS) or not all(0 <= x <= 1 for x in found) or not math.isclose(sum(found), 1):
        raise ConfigError(f"fractions must be three numbers in [0, 1] (train, val, test) that sum to 1, got {found}")
    return found


def _per_item(values: ArrayLike | None, what: str, items: int) -> NDArray[Any]:
    if values is None:
        return np.arange(items)
    values_N = np.asarray(values)
    if values_N.shape != (items,):
        raise ShapeError(f"{what} has shape {values_N.shape}, expected ({items},)")
    return values_N
