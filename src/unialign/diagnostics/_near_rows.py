"""Find nearly equal rows of one modality, such as the same caption embedded in several batches.

Rows are nearly equal if their distance is below a radius that separates them from all other pairs: hardly any distances
lie between the radius and three times the radius. Rows that fill a space densely have no separating radius.

Shapes: `N` items, `n` sampled items, `u` usable rows, `D` dimension, `t` rows of a tile.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign.diagnostics import _limits as limits
from unialign.ops import row_tiles

# Radii to try, the largest first, relative to the root mean square distance of two rows.
_RADII = (0.03, 0.01, 0.003, 0.001)
# A radius separates groups if the number of pairs within three times the radius is at most this multiple of the number
# within the radius.
_ISOLATED = 1.25
# Minimum number of nearly equal pairs; fewer pairs may be closer than all others by chance.
_MIN_PAIRS = 5


@dataclass(frozen=True)
class NearRows:
    """Groups of equal or nearly equal rows in the sample."""

    code_n: NDArray[np.int64]  # position of the first item in each item's group; absent items have separate groups
    repeats: int  # rows that are nearly equal, but not equal, to the row of an earlier item with a different id
    radius: float  # largest distance of nearly equal unit rows; 0 if only equal rows are grouped
    rows: int  # usable rows
    distinct: int  # groups of usable rows

    @property
    def has_few_distinct(self) -> bool:
        """Whether over half of the rows are copies, which are then counted once for hubs and spread."""
        return self.distinct < limits.FEW_DISTINCT * self.rows

    @property
    def are_answers(self) -> bool:
        """Whether enough rows are nearly equal to be scored as correct answers."""
        return self.repeats >= limits.NEAR_ANSWERS * max(self.rows, 1)

    @property
    def cosine(self) -> float:
        """Smallest cosine at which rows are nearly equal."""
        return 1 - self.radius**2 / 2


def find_near_rows(
    z_nD: Tensor, usable_n: Tensor, checksums_n: NDArray[np.uint64], ids_n: NDArray[np.int64]
) -> NearRows:
    at_u = usable_n.nonzero().flatten()
    code_n = equal_codes(checksums_n, usable_n.numpy())
    if len(at_u) < 3:
        return _result(code_n, 0, 0.0, usable_n)
    z_uD = z_nD[at_u]
    spread = math.sqrt(max(0.0, 2 - 2 * float(z_uD.mean(0).square().sum())))
    radii = [radius * spread for radius in _RADII]
    counts = _pairs_within(z_uD, [edge for radius in radii for edge in (radius, 3 * radius)])
    equal = _equal_pairs(code_n[at_u.numpy()])
    for radius, within, around in zip(radii, counts[::2], counts[1::2], strict=True):
        near, around = within - equal, around - equal
        if near >= 2 * _MIN_PAIRS and around <= _ISOLATED * near and radius > 1e-7:
            near_u = connect_near(z_uD, radius)
            near_n = code_n.copy()
            near_n[at_u.numpy()] = len(code_n) + near_u
            near_n = connected(code_n, near_n)
            return _result(near_n, _repeats(near_n, ids_n) - _repeats(code_n, ids_n), radius, usable_n)
    return _result(code_n, 0, 0.0, usable_n)


def _result(code_n: NDArray[np.int64], repeats: int, radius: float, usable_n: Tensor) -> NearRows:
    return NearRows(code_n, repeats, radius, int(usable_n.sum()), len(np.unique(code_n[usable_n.numpy()])))


def connect_near(z_uD: Tensor, radius: float) -> NDArray[np.int64]:
    """Return, for each row, the first row that is connected to it by steps of at most `radius`."""
    code_u = torch.arange(len(z_uD))
    while True:
        before_u = code_u
        for tile in row_tiles(len(z_uD), len(z_uD)):
            near_tu = z_uD[tile] @ z_uD.mT >= 1 - radius**2 / 2
            first_t = torch.where(near_tu, code_u, len(z_uD)).amin(1)
            code_u = code_u.scatter_reduce(0, code_u[tile], first_t, "amin")
            while not torch.equal(code_u, code_u[code_u]):
                code_u = code_u[code_u]
        if torch.equal(code_u, before_u):
            return np.asarray(code_u.numpy(), np.int64)


def connected(*codes: NDArray[np.generic]) -> NDArray[np.int64]:
    """Return, for each item, the first item that is connected to it by a chain of equal codes."""
    first_n = np.arange(len(codes[0]))
    groups = [np.unique(code_n, return_inverse=True)[1].reshape(-1) for code_n in codes]
    while True:
        before_n = first_n
        for group_n in groups:
            smallest_C = np.full(int(group_n.max()) + 1, len(first_n))
            np.minimum.at(smallest_C, group_n, first_n)
            first_n = smallest_C[group_n]
        if np.array_equal(first_n, before_n):
            return first_n.astype(np.int64)


def equal_codes(checksums_N: NDArray[np.uint64], usable_N: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return groups of equal rows; each unusable row forms a separate group."""
    _, code_N = np.unique(checksums_N, return_inverse=True)
    grouped_N = np.where(usable_N, len(code_N) + code_N.reshape(-1), np.arange(len(code_N)))
    return connected(grouped_N)


def _repeats(code_n: NDArray[np.int64], ids_n: NDArray[np.int64]) -> int:
    """Return the sum over groups of the number of distinct ids minus one."""
    different = len(np.unique(np.stack([code_n, ids_n]), axis=1).T)
    return different - len(np.unique(code_n))


def _equal_pairs(code_u: NDArray[np.int64]) -> int:
    size_C = np.unique(code_u, return_counts=True)[1]
    return int((size_C * (size_C - 1)).sum())


def _pairs_within(z_uD: Tensor, edges: Sequence[float]) -> list[int]:
    totals = [-len(z_uD)] * len(edges)
    for tile in row_tiles(len(z_uD), len(z_uD)):
        cosine_tu = z_uD[tile] @ z_uD.mT
        close_p = cosine_tu[cosine_tu >= 1 - max(edges) ** 2 / 2]
        totals = [total + int((close_p >= 1 - edge**2 / 2).sum()) for total, edge in zip(totals, edges, strict=True)]
    return totals
