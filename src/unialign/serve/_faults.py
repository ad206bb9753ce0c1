"""Items that explain the findings of a diagnosis: mispaired items, hubs, outliers and copies.

All comparisons use corrected rows, as searches do. A fault is a suspicion for a person to judge: the thresholds are set
so that lists stay short where a space is sound.

Shapes: `n` items, `D` dimension, `q` queries of a block, `G` rows of a gallery, `k` neighbors.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Fault", "FaultKind", "Faults", "find_faults", "items_compared"]

FaultKind = Literal["mispaired", "copy", "hub", "outlier"]
_BLOCK = 2048
_NEIGHBORS = 10
# Multiplications and additions that a diagnosis may take, and the largest number of items.
_OPERATIONS, _MOST_ITEMS = 4e11, 20_000
# A pair of modalities can tell mispaired items apart if the true counterpart of the median item is among this fraction
# of the candidates; a counterpart beyond `_FAR` of the candidates, in both directions, is no better than a random one.
_TRUSTED, _FAR = 0.05, 0.25
# Two items whose rows are each other's nearest counterparts, in both directions, are probably swapped. A wrong
# counterpart may be near by chance, so a lower fraction suffices.
_SWAPPED_FAR = 0.03
# A hub is a neighbor this many times as often as the average row.
_HUB = 5.0
# Robust z-value of the similarity with the nearest rows, below which a row is an outlier.
_OUTLIER_Z = -3.5
# Cosine from which rows in float32 count as equal.
_EQUAL = 1 - 2e-6


@dataclass(frozen=True)
class Fault:
    """A suspicion about an item.

    Attributes:
        kind: `mispaired`, `copy`, `hub` or `outlier`.
        key: the item.
        modalities: its affected modalities.
        value: strength; its meaning depends on the kind (see `text`).
        text: the reason in words.
        partner: another item that belongs to the suspicion, or None.
        is_swap: for mispaired items, whether the partner has what belongs here and the other way around.
    """

    kind: FaultKind
    key: str
    modalities: tuple[str, ...]
    value: float
    text: str
    partner: str | None = None
    is_swap: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            "key": self.key,
            "modalities": list(self.modalities),
            "value": self.value,
            "text": self.text,
            "partner": self.partner,
            "swap": self.is_swap,
        }


@dataclass(frozen=True, eq=False)
class Faults:
    """Faults of a sample of items, the strongest of each kind first.

    Attributes:
        found: the faults.
        items: number of items that were compared.
        untrusted: pairs of modalities whose true counterparts are too far apart to judge single items.
    """

    found: tuple[Fault, ...]
    items: int
    untrusted: tuple[tuple[str, str], ...] = ()

    def of(self, kind: FaultKind) -> list[Fault]:
        """Return the faults of a kind."""
        return [fault for fault in self.found if fault.kind == kind]


@dataclass(eq=False)
class _Neighbors:
    """Neighbors of the rows of modality a in modality m; numbers are those of items.

    Attributes:
        query_n: numbers of the items with modality a.
        near_qk: numbers of the nearest items without the query's own.
        cosine_qk: their cosines.
        percentile_n: (n,) fraction of the candidates that are nearer than the item's own row in m; NaN without one.
    """

    near_qk: Tensor
    cosine_qk: Tensor
    percentile_n: Tensor
    query_n: Tensor


def items_compared(items: int, modalities: int, dim: int) -> int:
    """Return the number of items that a diagnosis compares: all, or as many as its budget of operations allows."""
    affordable = math.isqrt(int(_OPERATIONS / (2 * max(1, modalities) ** 2 * max(1, dim))))
    return min(items, affordable, _MOST_ITEMS)


@torch.no_grad()
def find_faults(
    keys: Sequence[str],
    z: Mapping[str, NDArray[np.float32]],
    present: Mapping[str, NDArray[np.bool_]],
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> Faults:
    """Return suspicions about items.

    Args:
        keys: n keys.
        z: modality -> (n, D) corrected unit rows.
        present: modality -> (n,) bool.
        on_progress: called with the number of compared pairs of modalities, and their total.
    """
    names = [name for name in z if int(present[name].sum()) > 2]
    rows = {name: torch.from_numpy(np.ascontiguousarray(z[name])).float() for name in names}
    has = {name: torch.from_numpy(present[name]) for name in names}
    k = max(1, min(_NEIGHBORS, len(keys) // 20))
    compared: dict[tuple[str, str], _Neighbors] = {}
    for a in names:
        for m in names:
            if on_progress is not None:
                on_progress(len(compared), len(names) ** 2)
            compared[a, m] = _compare(rows[a], has[a], rows[m], has[m], k, same=a == m)
    mispaired, untrusted = _mispaired(keys, names, compared, has)
    found = (
        mispaired
        + _copies(keys, names, compared)
        + _hubs(keys, names, compared, has, k)
        + _outliers(keys, names, compared)
    )
    return Faults(tuple(found), len(keys), tuple(untrusted))


def _compare(
    query_nD: Tensor, query_has_n: Tensor, gallery_nD: Tensor, gallery_has_n: Tensor, k: int, *, same: bool
) -> _Neighbors:
    query_n, gallery_n = query_has_n.nonzero().flatten(), gallery_has_n.nonzero().flatten()
    gallery_GD = gallery_nD[gallery_n]
    place_n = torch.full((len(query_nD),), -1)
    place_n[gallery_n] = torch.arange(len(gallery_n))
    k = min(k, len(gallery_n) - 1)
    near, cosine = [], []
    percentile_n = torch.full((len(query_nD),), torch.nan)
    for block_q in query_n.split(_BLOCK):
        score_qG = query_nD[block_q] @ gallery_GD.mT
        own_q = place_n[block_q]
        paired = (own_q >= 0).nonzero().flatten()
        true_p = score_qG[paired, own_q[paired]]
        if not same:
            # Scores in float32 tie with the true one within rounding.
            above_p = (score_qG[paired] > true_p[:, None] + 1e-6).sum(1)
            percentile_n[block_q[paired]] = above_p / max(1, len(gallery_n) - 1)
        score_qG[paired, own_q[paired]] = -2.0
        values_qk, places_qk = score_qG.topk(k, dim=1)
        near.append(gallery_n[places_qk])
        cosine.append(values_qk)
    return _Neighbors(torch.cat(near), torch.cat(cosine), percentile_n, query_n)


@dataclass(eq=False)
class _Odd:
    """An item whose row in some modalities does not fit the others."""

    item: int
    modalities: tuple[str, ...]
    value: float
    # Number of the item whose rows the odd ones fit best, by the most modalities.
    best: int | None = field(default=None)


def _mispaired(
    keys: Sequence[str],
    names: Sequence[str],
    compared: Mapping[tuple[str, str], _Neighbors],
    has: Mapping[str, Tensor],
) -> tuple[list[Fault], list[tuple[str, str]]]:
    nearest = {pair: _nearest(len(keys), one) for pair, one in compared.items()}
    far: dict[tuple[str, str], _Far] = {}
    untrusted = []
    for place, a in enumerate(names):
        for m in names[place + 1 :]:
            # The better of both directions.
            value_n = torch.fmin(compared[a, m].percentile_n, compared[m, a].percentile_n)
            known_n = value_n[~value_n.isnan()]
            if len(known_n) < 20 or float(known_n.median()) > _TRUSTED:
                untrusted.append((a, m))
                continue
            exchanged_n = _exchanged(nearest[a, m], nearest[m, a])
            is_far_n = (value_n > _FAR) | (exchanged_n & (value_n > _SWAPPED_FAR))
            far[a, m] = _Far(value_n.tolist(), is_far_n.tolist())
    odd = [found for item in range(len(keys)) if (found := _odd(item, names, far, has)) is not None]
    for one in odd:
        one.best = _best_counterpart(one, far, nearest)
    by_item = {one.item: one for one in odd}
    faults = []
    for one in sorted(odd, key=lambda one: -one.value):
        other = by_item.get(one.best) if one.best is not None else None
        is_swap = other is not None and other.best == one.item and set(other.modalities) & set(one.modalities) != set()
        faults.append(_mispaired_fault(keys, one, is_swap=is_swap))
    return sorted(faults, key=lambda fault: (not fault.is_swap, -fault.value)), untrusted


@dataclass(eq=False)
class _Far:
    """For each item, the fraction of nearer candidates (NaN without a pair), and whether that is too many."""

    value: list[float]
    is_far: list[bool]


def _nearest(items: int, compared: _Neighbors) -> Tensor:
    """Return (n,) numbers of the nearest other items; -1 without the modality."""
    nearest_n = torch.full((items,), -1)
    nearest_n[compared.query_n] = compared.near_qk[:, 0]
    return nearest_n


def _exchanged(forward_n: Tensor, backward_n: Tensor) -> Tensor:
    """Return (n,) bool: the nearest counterpart in both directions is that of one other item, whose is this item's."""
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
    # A modality is odd if it fits no other one, and two others fit each other.
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
            # Rows of the item's other modalities look for the row that belongs to them.
            if gallery in one.modalities and (best := int(nearest[query, gallery][one.item])) >= 0:
                votes[best] = votes.get(best, 0) + 1
    return max(votes, key=lambda item: votes[item]) if votes else None


def _mispaired_fault(keys: Sequence[str], one: _Odd, *, is_swap: bool) -> Fault:
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
        text += f"; the nearest counterpart is that of {partner!r}"
    return Fault("mispaired", keys[one.item], one.modalities, one.value, text, partner, is_swap)


def _copies(keys: Sequence[str], names: Sequence[str], compared: Mapping[tuple[str, str], _Neighbors]) -> list[Fault]:
    partners: dict[int, dict[int, list[str]]] = {}
    for name in names:
        c = compared[name, name]
        equal_qk = c.cosine_qk >= _EQUAL
        for query in equal_qk.any(1).nonzero().flatten().tolist():
            others = partners.setdefault(int(c.query_n[query]), {})
            for other in c.near_qk[query][equal_qk[query]].tolist():
                others.setdefault(other, []).append(name)
    faults = []
    for item, others in partners.items():
        best = max(others, key=lambda other: (len(others[other]), -other))
        modalities = tuple(name for name in names if any(name in shared for shared in others.values()))
        shared = " and ".join(others[best])
        more = f", and to {len(others) - 1} more" if len(others) > 1 else ""
        text = f"equal to {keys[best]!r} in {shared}{more}"
        faults.append(Fault("copy", keys[item], modalities, float(len(others[best])), text, keys[best]))
    # Copies in several modalities first, and the two of a pair next to each other.
    return sorted(faults, key=lambda fault: (-fault.value, min(fault.key, fault.partner or ""), fault.key))


def _hubs(
    keys: Sequence[str],
    names: Sequence[str],
    compared: Mapping[tuple[str, str], _Neighbors],
    has: Mapping[str, Tensor],
    k: int,
) -> list[Fault]:
    faults = []
    for m in names:
        count_n = torch.zeros(len(keys))
        for a in names:
            near = compared[a, m].near_qk.flatten()
            count_n.index_add_(0, near, torch.ones(len(near)))
        queries = sum(len(compared[a, m].query_n) for a in names)
        ratio_n = count_n / (k * queries / int(has[m].sum()))
        for item in (ratio_n >= _HUB).nonzero().flatten().tolist():
            ratio, share = float(ratio_n[item]), 100 * float(count_n[item]) / queries
            text = f"its {m} is among the {k} nearest of {share:.1f} % of all rows, {ratio:.1f} times the average"
            faults.append(Fault("hub", keys[item], (m,), ratio, text))
    return sorted(faults, key=lambda fault: -fault.value)


def _outliers(keys: Sequence[str], names: Sequence[str], compared: Mapping[tuple[str, str], _Neighbors]) -> list[Fault]:
    faults = []
    for name in names:
        c = compared[name, name]
        if len(c.query_n) < 20:
            continue
        near_q = c.cosine_qk.mean(1)
        median = near_q.median()
        # 1.4826 times the median deviation is the standard deviation of a normal distribution.
        spread = 1.4826 * (near_q - median).abs().median().clamp(min=1e-4)
        for query in ((near_q - median) / spread < _OUTLIER_Z).nonzero().flatten().tolist():
            z_value = float((near_q[query] - median) / spread)
            text = (
                f"its {name} has a mean cosine of {float(near_q[query]):.2f} with the nearest rows; "
                f"the median is {float(median):.2f}"
            )
            faults.append(Fault("outlier", keys[int(c.query_n[query])], (name,), -z_value, text))
    return sorted(faults, key=lambda fault: -fault.value)
