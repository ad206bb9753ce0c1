"""Find the cosine above which two rows are likely to belong to the same item.

P(match | cosine) is assumed to rise with the cosine (isotonic regression, Barlow et al. 1972). It is then at least `p`
for all cosines of at least t, where t maximizes (1 - p) T(t) - p F(t), and T(t) and F(t) are the fractions of pairs and
of non-pairs with a cosine of at least t.

Shapes: `n` items, `q` non-pairs, `o` offsets, `t` rows of a tile, `v` cosines in ascending order.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from unialign.diagnostics import _limits as limits
from unialign.ops import row_tiles

Array = NDArray[Any]

# Number of non-pairs per item, drawn at random.
_OFFSETS = 64
LIKELY, SURE = 0.5, 0.95


@dataclass(frozen=True)
class MatchStats:
    """Cosine thresholds for likely matches, assuming that pairs and non-pairs are equally frequent."""

    cosine: float  # threshold above which a match is more likely than not
    true_fraction: float  # fraction of pairs that reach the threshold (cross-validated)
    random_fraction: float  # fraction of non-pairs that reach the threshold (cross-validated)
    sure_cosine: float  # threshold above which a match is at least 95 % likely
    sure_true_fraction: float
    sure_random_fraction: float


def calibrate_match(x_nD: Tensor, y_nD: Tensor, class_n: NDArray[np.int64], *, seed: int) -> MatchStats | None:
    """Compute the thresholds. The fractions that reach a threshold are cross-validated: each half of the items is
    measured with the threshold of the other half.
    """
    if len(x_nD) < limits.FEW_ITEMS:
        return None
    order_n = np.random.default_rng(seed).permutation(len(x_nD))
    halves = [_cosines(x_nD, y_nD, class_n, np.sort(half), seed=seed) for half in (order_n[::2], order_n[1::2])]
    if any(not len(other) for _, other in halves):
        return None
    true, other = (np.concatenate(parts) for parts in zip(*halves, strict=True))
    found = []
    for probability in (LIKELY, SURE):
        cross = [(threshold(*halves[1 - i], probability), halves[i]) for i in range(2)]
        fractions = [[float((part >= at).mean()) for part in half] for at, half in cross]
        found += [threshold(true, other, probability), *np.mean(fractions, axis=0).tolist()]
    return MatchStats(*found)


def threshold(true_n: Array, other_q: Array, probability: float) -> float:
    """Return the smallest cosine at which a match has the given probability, midway between two cosines; NaN if there
    is none.
    """
    value_v = np.concatenate([true_n, other_q])
    weight_v = np.concatenate(
        [np.full(len(true_n), (1 - probability) / len(true_n)), np.full(len(other_q), -probability / len(other_q))]
    )
    order_v = np.argsort(value_v, kind="stable")
    value_v, weight_v = value_v[order_v], weight_v[order_v]
    above_v = np.cumsum(weight_v[::-1])[::-1]
    # Keep equal cosines on the same side of the threshold.
    first_v = np.flatnonzero(np.concatenate([[True], value_v[1:] > value_v[:-1]]))
    at = first_v[int(above_v[first_v].argmax())]
    if above_v[at] <= 0:
        return float("nan")
    return float(value_v[at] if at == 0 else (value_v[at] + value_v[at - 1]) / 2)


def _cosines(x_nD: Tensor, y_nD: Tensor, class_n: Array, at_k: Array, *, seed: int) -> tuple[Array, Array]:
    x_kD, y_kD, class_k, k = x_nD[at_k], y_nD[at_k], class_n[at_k], len(at_k)
    offset_o = np.random.default_rng(seed).permutation(np.arange(1, k))[:_OFFSETS]
    others = []
    for tile in row_tiles(k, k):
        row_t = np.arange(tile.start, min(tile.stop, k))
        counterpart_to = (row_t[:, None] + offset_o) % k
        value_to = np.take_along_axis((x_kD[tile] @ y_kD.mT).numpy(), counterpart_to, axis=1)
        others.append(value_to[class_k[row_t][:, None] != class_k[counterpart_to]])
    return (x_kD * y_kD).sum(1).numpy(), np.concatenate(others)
