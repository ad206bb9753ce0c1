"""Find exact duplicates by row checksums, and confirm them by rereading a sample of the rows.

Shapes: `N` rows, `u` usable rows, `g` groups of equal checksums, `c` rows of a chunk, `W` 64-bit words of a row.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.readers import Rows

Array = NDArray[Any]

# Number of pairs reread to detect systematic collisions. The chance of a collision is 2^-50 per pair.
_CONFIRMED_PAIRS = 200


@dataclass(frozen=True)
class Duplicates:
    """Rows that equal another item's row; items with the same id are not compared."""

    repeats: int  # number of rows that repeat an earlier row
    distinct: int  # number of distinct rows
    largest: int  # size of the largest group of equal rows
    examples: tuple[tuple[int, int], ...]  # up to three pairs of equal rows


def checksum_weights(row_bytes: int) -> tuple[Array, Array]:
    """Return two odd 64-bit weights per word, which are fixed (splitmix64) so that fingerprints never change."""
    words = -(-row_bytes // 8)
    with np.errstate(over="ignore"):
        state = np.arange(1, 2 * words + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = (state ^ (state >> np.uint64(31))) | np.uint64(1)
    return state[:words], state[words:]


def row_checksums(chunk_cD: Array, weights: tuple[Array, Array]) -> NDArray[np.uint64]:
    """Return sum_w (u_w a_w + (u_w >> 32) b_w) mod 2^64 over the 64-bit words u of each row: multilinear hashing
    (Carter & Wegman 1979). The second term gives the upper halves separate weights, since words that differ only there
    differ by a multiple of 2^32, whose product with `a` has few nonzero bits.
    """
    if chunk_cD.nbytes // len(chunk_cD) % 8:
        chunk_cD = np.concatenate([chunk_cD, np.zeros((len(chunk_cD), 1), chunk_cD.dtype)], 1)
    words_cW = np.ascontiguousarray(chunk_cD).view(np.uint64)
    with np.errstate(over="ignore"):
        lower_c = np.einsum("ij,j->i", words_cW, weights[0])
        upper_c = np.einsum("ij,j->i", words_cW >> np.uint64(32), weights[1])
        return np.asarray(lower_c + upper_c)


def find_duplicates(
    usable_N: NDArray[np.bool_], checksums_N: NDArray[np.uint64], rows: Rows, ids_N: NDArray[np.int64] | None
) -> Duplicates:
    row_u = np.flatnonzero(usable_N)
    sum_u = checksums_N[row_u]
    order = np.argsort(sum_u, kind="stable") if ids_N is None else np.lexsort((ids_N[row_u], sum_u))
    row_u, sum_u = row_u[order], sum_u[order]
    if ids_N is not None:
        # Equal rows with the same id (an image with several captions) are expected. Keep one row per checksum and id.
        first_u = np.ones(len(row_u), dtype=np.bool_)
        first_u[1:] = (sum_u[1:] != sum_u[:-1]) | (ids_N[row_u[1:]] != ids_N[row_u[:-1]])
        row_u, sum_u = row_u[first_u], sum_u[first_u]
    if not len(row_u):
        return Duplicates(0, 0, 0, ())
    start_g = np.flatnonzero(np.concatenate([[True], sum_u[1:] != sum_u[:-1]]))
    size_g = np.diff(np.append(start_g, len(row_u)))
    several_g = np.flatnonzero(size_g > 1)
    if not len(several_g):
        return Duplicates(0, len(start_g), 1, ())
    checked_g = several_g[np.linspace(0, len(several_g) - 1, min(_CONFIRMED_PAIRS, len(several_g))).astype(np.int64)]
    pairs = np.sort(np.stack([row_u[start_g[checked_g]], row_u[start_g[checked_g] + 1]], 1), axis=1)
    wanted, position = np.unique(pairs, return_inverse=True)
    values = rows.take(wanted.tolist())[position.reshape(-1)].reshape(len(pairs), 2, -1)
    equal = (values[:, 0] == values[:, 1]).all(1)
    # Assume the same fraction of true duplicates among the pairs that were not reread.
    fraction = float(equal.mean())
    repeats = round(fraction * int((size_g - 1).sum()))
    examples = sorted((int(a), int(b)) for (a, b), good in zip(pairs.tolist(), equal, strict=True) if good)
    largest = int(size_g.max()) if fraction > 0 else 1
    return Duplicates(repeats, int(size_g.sum()) - repeats, largest, tuple(examples[:3]))
