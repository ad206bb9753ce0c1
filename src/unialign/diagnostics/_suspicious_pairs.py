"""Find items whose rows in different modalities do not match each other.

Shapes: `n` items.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from unialign.diagnostics._suspicious_item import SuspiciousItem
from unialign.diagnostics._suspicious_neighbors import Neighbors

# Mispaired items can be detected in a pair of modalities if the true counterpart of the median item is among this
# fraction of the nearest candidates. In both directions, a counterpart beyond the fraction `_FAR` is a random match.
_TRUSTED, _FAR = 0.05, 0.25
# Two items whose rows are each other's nearest counterparts, in both directions, are probably swapped. A wrong
# counterpart may be near by chance, so a lower fraction suffices.
_SWAPPED_FAR = 0.03


@dataclass(eq=False)
class _Odd:
    """An item whose rows in some modalities do not match the others."""

    item: int
    modalities: tuple[str, ...]
    value: float
    # Number of the item whose rows match the mismatched rows best, by majority over the modalities.
    best: int | None = field(default=None)


def mispaired_items(
    keys: Sequence[str],
    names: Sequence[str],
    compared: Mapping[tuple[str, str], Neighbors],
    has: Mapping[str, Tensor],
) -> tuple[list[SuspiciousItem], list[tuple[str, str]]]:
    nearest = {pair: _nearest(len(keys), one) for pair, one in compared.items()}
    far: dict[tuple[str, str], _Far] = {}
    untrusted = []
    for place, a in enumerate(names):
        for m in names[place + 1 :]:
            # Use the better of the two directions.
            value_n = torch.fmin(compared[a, m].percentile_n, compared[m, a].percentile_n)
            known_n = value_n[~value_n.isnan()]
            if len(known_n) < 20 or float(known_n.median()) > _TRUSTED:
                untrusted.append((a, m))
                continue
            exchanged_n = _exchanged(nearest[a, m], nearest[m, a])
            is_far_n = (value_n > _FAR) | (exchanged_n & (value_n > _SWAPPED_FAR))
            far[a, m] = _Far(value_n.tolist(), is_far_n.tolist())
    odd = [one for item in range(len(keys)) if (one := _odd(item, names, far, has)) is not None]
    for one in odd:
        one.best = _best_counterpart(one, far, nearest)
    by_item = {one.item: one for one in odd}
    found = []
    for one in sorted(odd, key=lambda one: -one.value):
        other = by_item.get(one.best) if one.best is not None else None
        is_swap = other is not None and other.best == one.item and set(other.modalities) & set(one.modalities) != set()
        found.append(_described(keys, one, is_swap=is_swap))
    return sorted(found, key=lambda one: (not one.is_swap, -one.value)), untrusted


@dataclass(eq=False)
class _Far:
    """For each item, the fraction of candidates that are nearer (NaN without a pair), and whether it is too large."""

    value: list[float]
    is_far: list[bool]


def _nearest(items: int, compared: Neighbors) -> Tensor:
    """Return (n,) numbers of the nearest other items; -1 without the modality."""
    nearest_n = torch.full((items,), -1)
    nearest_n[compared.query_n] = compared.near_qk[:, 0]
    return nearest_n


def _exchanged(forward_n: Tensor, backward_n: Tensor) -> Tensor:
    """Return (n,) bool: whether the item and one other item are each other's nearest counterparts in both
    directions.
    """
    own_n = torch.arange(len(forward_n))
    other_n = forward_n.clamp(min=0)
    same_n = (forward_n >= 0) & (backward_n == forward_n)
    return same_n & (forward_n[other_n] == own_n) & (backward_n[other_n] == own_n)


def _odd(
    item: int, names: Sequence[str], far: Mapping[tuple[str, str], _Far], has: Mapping[str, Tensor]
) -> _Odd | None:
    values = {pair: one.value[item] for pair, one in far.items() if not math.isnan(one.value[item])}
    bad = {pair: value for pair, value in values.items() if far[pair].is_far[item]}
    if not bad:
        return None
    value = float(np.mean(list(bad.values())))
    if len(values) == 1:
        return _Odd(item, next(iter(values)), value)
    # A modality is mismatched if it matches no other modality, while two others match each other.
    lonely = [
        name
        for name in names
        if (mine := [pair for pair in values if name in pair]) and all(pair in bad for pair in mine)
    ]
    if len(lonely) == 1 and len(bad) < len(values):
        return _Odd(item, (lonely[0],), value)
    if len(bad) == len(values):
        return _Odd(item, tuple(name for name in names if bool(has[name][item])), value)
    return None


def _best_counterpart(
    one: _Odd, far: Mapping[tuple[str, str], _Far], nearest: Mapping[tuple[str, str], Tensor]
) -> int | None:
    votes: dict[int, int] = {}
    for a, m in far:
        for query, gallery in ((a, m), (m, a)):
            # Use the nearest row of the rows of the item's other modalities.
            if gallery in one.modalities and (best := int(nearest[query, gallery][one.item])) >= 0:
                votes[best] = votes.get(best, 0) + 1
    return max(votes, key=lambda item: votes[item]) if votes else None


def _described(keys: Sequence[str], one: _Odd, *, is_swap: bool) -> SuspiciousItem:
    partner = None if one.best is None else keys[one.best]
    named = " and ".join(one.modalities) if len(one.modalities) <= 2 else "the modalities"
    share = f"{100 * one.value:.0f} %"
    if len(one.modalities) == 1:
        text = f"{named} does not fit the item's other modalities: {share} of the items fit them better"
    else:
        text = f"{named} do not fit each other: {share} of the items fit better"
    if is_swap:
        text += f"; probably swapped with {partner!r}"
    elif partner is not None:
        text += f"; the nearest counterpart belongs to {partner!r}"
    return SuspiciousItem("mispaired", keys[one.item], one.modalities, one.value, text, partner, is_swap)
