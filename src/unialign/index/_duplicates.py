"""Find groups of items with equal or nearly equal rows, exactly.

Shapes: `n` rows of a modality, `b` rows of a block, `D` dimension.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign._checks import check_choice, check_number
from unialign.errors import ConfigError
from unialign.index._calibration import Calibration

Within = Literal["modality", "across"]
Cause = Literal["equal_bytes", "equal_direction", "near"]
# Rows with a larger cosine have the same direction, up to rounding in float32.
_EQUAL = 1 - 1e-6
_BLOCK = 1024
_ORDER: tuple[Cause, ...] = ("equal_bytes", "equal_direction", "near")


@dataclass(frozen=True)
class DuplicateGroup:
    """Items that are connected by duplicate rows.

    Attributes:
        keys: keys of two items or more, in the order of the index.
        cause: weakest cause of a connection: `equal_bytes`, `equal_direction` or `near`.
        modalities: modalities of the duplicate rows.
        similarity: smallest cosine of the connected rows after the correction.
    """

    keys: tuple[str, ...]
    cause: Cause
    modalities: tuple[str, ...]
    similarity: float


def find_duplicates(
    keys: Sequence[str],
    z: Mapping[str, NDArray[np.float32]],
    present: Mapping[str, NDArray[np.bool_]],
    calibration: Calibration,
    *,
    threshold: float | None = None,
    within: Within = "modality",
) -> list[DuplicateGroup]:
    """Compare all rows of different items.

    Args:
        keys: keys of the items.
        z: modality -> rows of all items.
        present: modality -> mask of the items that have it.
        calibration: the correction of the index.
        threshold: cosine after the correction from which rows are near, in (0, 1]. None: the cosine above which about
            one in 1,000 rows has an unrelated row (see `Calibration.near`); without curves, only equal rows are found.
        within: compare rows of the same modality, or `across` different modalities.

    Returns:
        Groups, the largest first.

    Raises:
        ConfigError: an option is invalid.
    """
    check_choice("within", within, ("modality", "across"))
    if threshold is not None:
        check_number("threshold", threshold, "in (0, 1]", lambda x: 0 < x <= 1)
    names = [name for name in z if present[name].any()]
    places = {name: np.flatnonzero(present[name]) for name in names}
    stored = {name: torch.from_numpy(np.ascontiguousarray(z[name][places[name]])) for name in names}
    unit = {name: calibration.correct(name, rows_nD).nan_to_num().float() for name, rows_nD in stored.items()}
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i:] if (a == b) == (within == "modality")]
    if not pairs and within == "across":
        raise ConfigError("the index has only one modality, so no rows of different modalities can be compared")
    found: dict[tuple[int, int], tuple[Cause, set[str], float]] = {}
    for a, b in pairs:
        limit = threshold if threshold is not None else calibration.near(a, b, len(places[b]))
        for i, j, cosine in _near_rows(unit[a], unit[b], _EQUAL if limit is None else limit, same=a == b):
            one, other = int(places[a][i]), int(places[b][j])
            if one != other:
                cause = _cause(stored[a][i], stored[b][j])
                if cause == "near" and limit is None:
                    continue
                _join(found, min(one, other), max(one, other), cause, {a, b}, cosine)
    return _groups(keys, found)


def _near_rows(x_nD: Tensor, y_nD: Tensor, limit: float, *, same: bool) -> list[tuple[int, int, float]]:
    """Return the pairs of rows with a cosine of at least `limit`; float32 products only select candidates."""
    found = []
    for start in range(0, len(x_nD), _BLOCK):
        rest_nD = y_nD[start:] if same else y_nD
        cosine_bn = x_nD[start : start + _BLOCK] @ rest_nD.mT
        rows, columns = (cosine_bn >= min(limit, _EQUAL) - 1e-6).nonzero().unbind(1)
        for i, j in zip(rows.tolist(), columns.tolist(), strict=True):
            i, j = i + start, j + (start if same else 0)
            if same and j <= i:
                continue
            exact = float(x_nD[i].double() @ y_nD[j].double())
            if exact >= min(limit, _EQUAL):
                found.append((i, j, min(exact, 1.0)))
    return found


def _cause(x_D: Tensor, y_D: Tensor) -> Cause:
    if torch.equal(x_D, y_D):
        return "equal_bytes"
    return "equal_direction" if float(x_D.double() @ y_D.double()) >= _EQUAL else "near"


def _join(
    found: dict[tuple[int, int], tuple[Cause, set[str], float]],
    one: int,
    other: int,
    cause: Cause,
    names: set[str],
    cosine: float,
) -> None:
    """Record a duplicate; if several modalities connect two items, the strongest cause is kept."""
    old = found.get((one, other))
    if old is None:
        found[one, other] = (cause, set(names), cosine)
    else:
        found[one, other] = (min(old[0], cause, key=_ORDER.index), old[1] | names, max(old[2], cosine))


def _groups(
    keys: Sequence[str], found: Mapping[tuple[int, int], tuple[Cause, set[str], float]]
) -> list[DuplicateGroup]:
    root: dict[int, int] = {}

    def find(item: int) -> int:
        while root.setdefault(item, item) != item:
            root[item] = root[root[item]]
            item = root[item]
        return item

    for one, other in found:
        first, second = sorted((find(one), find(other)))
        root[second] = first
    members: dict[int, list[int]] = {}
    for item in sorted(root):
        members.setdefault(find(item), []).append(item)
    links: dict[int, list[Any]] = {}
    for (one, _), link in found.items():
        links.setdefault(find(one), []).append(link)
    groups = [
        DuplicateGroup(
            tuple(keys[item] for item in items),
            max((link[0] for link in links[first]), key=_ORDER.index),
            tuple(sorted(set().union(*(link[1] for link in links[first])))),
            min(link[2] for link in links[first]),
        )
        for first, items in members.items()
    ]
    return sorted(groups, key=lambda group: (-len(group.keys), group.keys))
