"""Find the items that explain the findings of a diagnosis: mispaired items, copies, hubs and outliers.

The thresholds are chosen so that the lists are short for spaces without faults.

Shapes: `n` items, `D` dimension, `q` queries, `k` neighbors.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign.diagnostics._suspicious_item import SuspiciousItem, SuspiciousItems
from unialign.diagnostics._suspicious_neighbors import Neighbors, compare_rows
from unialign.diagnostics._suspicious_pairs import mispaired_items
from unialign.errors import ConfigError, DataError

__all__ = ["items_compared", "suspicious_items"]

_NEIGHBORS = 10
# Maximum number of multiplications and additions of a diagnosis, and maximum number of items.
_OPERATIONS, _MOST_ITEMS = 4e11, 20_000
# A hub is a neighbor this many times as often as the average row.
_HUB = 5.0
# Robust z-value of the similarity with the nearest rows, below which a row is an outlier.
_OUTLIER_Z = -3.5
# Minimum cosine of float32 rows that are treated as equal.
_EQUAL = 1 - 2e-6


def items_compared(items: int, modalities: int, dim: int) -> int:
    """Return the number of items that a diagnosis compares: all, or as many as its budget of operations allows."""
    affordable = math.isqrt(int(_OPERATIONS / (2 * max(1, modalities) ** 2 * max(1, dim))))
    return min(items, affordable, _MOST_ITEMS)


@torch.no_grad()
def suspicious_items(
    z: Mapping[str, NDArray[Any] | Tensor],
    *,
    keys: Sequence[str] | None = None,
    present: Mapping[str, NDArray[np.bool_]] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> SuspiciousItems:
    """Return items that may be mispaired, copies of others, hubs or outliers.

    An item is mispaired in a modality if, in both directions, more than a quarter of the candidates are nearer than its
    true counterpart, or if two items are each other's nearest counterparts (a swap). A copy has the same row as another
    item. A hub is among the nearest rows 5 times as often as the average row. The mean cosine of an outlier with its
    nearest rows is 3.5 robust standard deviations below the median. Check all results manually.

    Correct the gap between modalities first, for example with `unialign.correction`, as `unialign diagnose --fix-list`
    does. All pairs of rows are compared, which takes `2 * M^2 * n^2 * D` operations for M modalities.

    Args:
        z: modality -> (n, D) rows, which are normalized here. Absent rows may hold any values.
        keys: n keys of items (default: the row numbers as text).
        present: modality -> (n,) bool (default: all present).
        on_progress: called with the number of compared pairs of modalities, and their total.

    Returns:
        The suspected faults, the strongest of each kind first, and the pairs of modalities that match too weakly to
        judge single items.

    Raises:
        ConfigError: `z` is empty, or a name in `present` is unknown.
        DataError: shapes differ, or a present row holds NaN or infinity.
    """
    rows, has = _checked(z, present)
    items = len(next(iter(rows.values())))
    keys = [str(row) for row in range(items)] if keys is None else keys
    if len(keys) != items:
        raise DataError(f"keys: got {len(keys):,} keys for {items:,} items; pass one key per item")
    names = [name for name in rows if int(has[name].sum()) > 2]
    k = max(1, min(_NEIGHBORS, items // 20))
    compared: dict[tuple[str, str], Neighbors] = {}
    for a in names:
        for m in names:
            if on_progress is not None:
                on_progress(len(compared), len(names) ** 2)
            compared[a, m] = compare_rows(rows[a], has[a], rows[m], has[m], k, same=a == m)
    mispaired, untrusted = mispaired_items(keys, names, compared, has)
    found = (
        mispaired
        + _copies(keys, names, compared)
        + _hubs(keys, names, compared, has, k)
        + _outliers(keys, names, compared)
    )
    return SuspiciousItems(tuple(found), items, tuple(untrusted))


def _checked(
    z: Mapping[str, NDArray[Any] | Tensor], present: Mapping[str, NDArray[np.bool_]] | None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    if not z:
        raise ConfigError("z has no modality; pass at least one, as in suspicious_items({'image': rows})")
    given = dict(present or {})
    if unknown := [name for name in given if name not in z]:
        raise ConfigError(f"present names {', '.join(unknown)}, but z has {', '.join(z)}")
    rows: dict[str, Tensor] = {}
    has: dict[str, Tensor] = {}
    for name, value in z.items():
        z_nD = torch.as_tensor(np.ascontiguousarray(value) if isinstance(value, np.ndarray) else value).float()
        first = next(iter(rows.values()), z_nD)
        if z_nD.ndim != 2 or z_nD.shape != first.shape:
            expected = tuple(first.shape) if first.ndim == 2 else "(n, D)"
            raise DataError(f"{name!r} has the shape {tuple(z_nD.shape)}; expected {expected}")
        has_n = torch.as_tensor(np.asarray(given[name])) if name in given else torch.ones(len(z_nD), dtype=torch.bool)
        if has_n.dtype != torch.bool or has_n.shape != z_nD.shape[:1]:
            raise DataError(
                f"present of {name!r} has the shape {tuple(has_n.shape)} and dtype {has_n.dtype}; expected "
                f"({len(z_nD)},) bool"
            )
        bad_n = has_n & ~z_nD.isfinite().all(1)
        if bad_n.any():
            row = int(bad_n.nonzero()[0])
            raise DataError(f"{name!r} row {row} holds NaN or infinity; mark it as absent in present")
        rows[name] = torch.nn.functional.normalize(torch.where(has_n[:, None], z_nD, 0.0), dim=1)
        has[name] = has_n
    return rows, has


def _copies(
    keys: Sequence[str], names: Sequence[str], compared: Mapping[tuple[str, str], Neighbors]
) -> list[SuspiciousItem]:
    partners: dict[int, dict[int, list[str]]] = {}
    for name in names:
        c = compared[name, name]
        equal_qk = c.cosine_qk >= _EQUAL
        for query in equal_qk.any(1).nonzero().flatten().tolist():
            others = partners.setdefault(int(c.query_n[query]), {})
            for other in c.near_qk[query][equal_qk[query]].tolist():
                others.setdefault(other, []).append(name)
    found = []
    for item, others in partners.items():
        best = max(others, key=lambda other: (len(others[other]), -other))
        modalities = tuple(name for name in names if any(name in shared for shared in others.values()))
        shared = " and ".join(others[best])
        more = f", and to {len(others) - 1} more" if len(others) > 1 else ""
        text = f"equal to {keys[best]!r} in {shared}{more}"
        found.append(SuspiciousItem("copy", keys[item], modalities, float(len(others[best])), text, keys[best]))
    # List copies in several modalities first, and the two items of a pair next to each other.
    return sorted(found, key=lambda one: (-one.value, min(one.key, one.partner or ""), one.key))


def _hubs(
    keys: Sequence[str],
    names: Sequence[str],
    compared: Mapping[tuple[str, str], Neighbors],
    has: Mapping[str, Tensor],
    k: int,
) -> list[SuspiciousItem]:
    found = []
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
            found.append(SuspiciousItem("hub", keys[item], (m,), ratio, text))
    return sorted(found, key=lambda one: -one.value)


def _outliers(
    keys: Sequence[str], names: Sequence[str], compared: Mapping[tuple[str, str], Neighbors]
) -> list[SuspiciousItem]:
    found = []
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
            found.append(SuspiciousItem("outlier", keys[int(c.query_n[query])], (name,), -z_value, text))
    return sorted(found, key=lambda one: -one.value)
