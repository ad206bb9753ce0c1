"""Rows that repeat another row exactly, found by checksum and confirmed by reading them again.

Shapes: `N` rows, `u` usable ones, `g` groups of equal rows.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unialign.diagnostics._scan import Scan
from unialign.readers import Rows

__all__ = ["Copies", "copies"]

# Pairs that are read again; one in 2^50 pairs of checksums agrees by accident, so this guards against a pattern of
# ours, not against luck.
_CONFIRMED = 200


@dataclass(frozen=True)
class Copies:
    """Equal rows of items with different ids (where ids were given; else of any two items).

    Attributes:
        repeats: rows that repeat an earlier one.
        distinct: different rows.
        largest: the largest number of equal rows.
        examples: two equal rows, a few times.
    """

    repeats: int
    distinct: int
    largest: int
    examples: tuple[tuple[int, int], ...]


def copies(scan: Scan, rows: Rows, ids_N: NDArray[np.int64] | None) -> Copies:
    """Count the rows of a modality that are copies of each other."""
    row_u = np.flatnonzero(scan.usable_N)
    hash_u = scan.hashes_N[row_u]
    # Copies inside one item (several captions of one picture) are as they should be: one row an item and checksum.
    if ids_N is not None:
        order = np.lexsort((ids_N[row_u], hash_u))
        row_u, hash_u = row_u[order], hash_u[order]
        first_u = np.ones(len(row_u), dtype=np.bool_)
        first_u[1:] = (hash_u[1:] != hash_u[:-1]) | (ids_N[row_u[1:]] != ids_N[row_u[:-1]])
        row_u, hash_u = row_u[first_u], hash_u[first_u]
    else:
        order = np.argsort(hash_u, kind="stable")
        row_u, hash_u = row_u[order], hash_u[order]
    if not len(row_u):
        return Copies(0, 0, 0, ())
    start_g = np.flatnonzero(np.concatenate([[True], hash_u[1:] != hash_u[:-1]]))
    size_g = np.diff(np.append(start_g, len(row_u)))
    several_g = np.flatnonzero(size_g > 1)
    if not len(several_g):
        return Copies(0, len(start_g), 1, ())
    asked_g = several_g[np.linspace(0, len(several_g) - 1, min(_CONFIRMED, len(several_g))).astype(np.int64)]
    pairs = np.sort(np.stack([row_u[start_g[asked_g]], row_u[start_g[asked_g] + 1]], 1), axis=1)
    wanted, where = np.unique(pairs, return_inverse=True)
    found = rows.take(wanted.tolist())[where.reshape(-1)].reshape(len(pairs), 2, -1)
    same = (found[:, 0] == found[:, 1]).all(1)
    # What could not be confirmed is no copy; among those not read again, the same share is none.
    share = float(same.mean())
    repeats = round(share * int((size_g - 1).sum()))
    examples = sorted((int(a), int(b)) for (a, b), good in zip(pairs.tolist(), same, strict=True) if good)
    total = int(size_g.sum())
    return Copies(repeats, total - repeats, int(size_g.max()) if share > 0 else 1, tuple(examples[:3]))
