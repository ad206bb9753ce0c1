"""Model mispaired rows statistically, in blocks or scattered.

Let u_i in (0, 1) be the percentile rank of the true pair of item i among random pairs, and v_i = probit(u_i).

* Random counterpart: u_i is uniform, so v_i is standard normal.
* True counterpart: v_i is normal with a fitted center and spread.
* Scattered random counterparts: a mixture of both, with an unknown fraction. The mixture is accepted if it fits the
  percentiles better (Vuong's test) than a single population of true pairs with a long tail of hard items.
* Blocks: the items in row order form a chain of two states, true and random. The most likely path (Viterbi, with a
  penalty for each change of state) is accepted if it fits the percentiles better than scattered random counterparts,
  and each block only if its percentiles look uniform.

Percentiles are counted in bins of v, so that a likelihood is a product over bins and a model is fitted by grid search.

Shapes: `n` items in row order, `k` items of a stretch, `B` bins, `G` models of a grid, `U` quantiles of difficulty,
`C` cuts between items.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[Any]

# Minimum number of items; with fewer items, no pattern is significant.
MIN_ITEMS = 100
# Penalty for each change of state, and smallest log-likelihood ratio of blocks to scattered counterparts, in nats.
_SWITCH_PENALTY, _MIN_EVIDENCE = 10.0, 8.0
_MAX_BLOCKS, _MIN_BLOCK_ITEMS = 6, 12
# Smallest z-value of Vuong's test at which a mixture with random counterparts is accepted.
_MIN_VUONG_Z = 2.0
# Largest Kolmogorov distance from uniform, times sqrt(n) (p = 1/500 by chance); smallest z-value of the drop in a
# block.
_MAX_KOLMOGOROV, _MIN_DROP_Z = 1.86, 5.0
# Smallest center at which true pairs are distinguishable from random pairs; smallest fraction that is reported.
_MIN_CENTER, _MIN_FRACTION = 1.25, 0.05


def _normal_cdf(x: Array) -> Array:
    return np.asarray(torch.special.ndtr(torch.from_numpy(x)))


# Edges of the bins in probit units. The last bin is open, since true pairs of a good space are far above 3.
_EDGES_B = np.array([-np.inf, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, np.inf])
_PERCENTILE_EDGES_B = _normal_cdf(_EDGES_B)
_RANDOM_B = np.diff(_PERCENTILE_EDGES_B)


def _bins(percentile_n: Array) -> Array:
    return np.clip(np.searchsorted(_PERCENTILE_EDGES_B, percentile_n, "right") - 1, 0, len(_RANDOM_B) - 1)


def _bin_masses(cdf_GB: Array) -> Array:
    return np.asarray(np.maximum(np.diff(cdf_GB, axis=1), 1e-9))


def _grid(*axes: Array) -> tuple[Array, ...]:
    return tuple(axis.reshape(-1) for axis in np.meshgrid(*axes, indexing="ij"))


def _split_normal(center_G: Array, left_G: Array, right_G: Array) -> Array:
    """Return bin masses of normal distributions with different spreads below and above the center."""
    weight_G = left_G / (left_G + right_G)
    t_GB = _EDGES_B[None] - center_G[:, None]
    low_GB = 2 * weight_G[:, None] * _normal_cdf(np.minimum(t_GB, 0) / left_G[:, None])
    high_GB = 2 * (1 - weight_G[:, None]) * (_normal_cdf(np.maximum(t_GB, 0) / right_G[:, None]) - 0.5)
    return _bin_masses(low_GB + high_GB)


def _varying_difficulty(largest_G: Array, power_G: Array, spread_G: Array) -> Array:
    """Return bin masses of normal distributions around `largest` u^(1 / power), with u uniform in (0, 1)."""
    u_U = (np.arange(64) + 0.5) / 64
    center_GU = largest_G[:, None] * u_U[None] ** (1 / power_G[:, None])
    edge_GUB = (_EDGES_B - center_GU[..., None]) / spread_G[:, None, None]
    return _bin_masses(_normal_cdf(edge_GUB).mean(1))


_CENTERS = np.arange(0.0, 7.01, 0.25)
_CENTER_G, _SPREAD_G = _grid(_CENTERS, np.array([0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0]))
_TRUE_GB = _split_normal(_CENTER_G, _SPREAD_G, _SPREAD_G)
_LONG_TAILED_GB = np.concatenate(
    [
        _split_normal(*_grid(_CENTERS, np.geomspace(0.4, 6.0, 16), np.array([0.3, 0.5, 0.7, 1.0, 1.5]))),
        _varying_difficulty(*_grid(np.arange(1.0, 9.01, 0.5), np.geomspace(0.5, 8.0, 9), np.array([0.7, 1.0, 1.3]))),
    ]
)
_FRACTIONS = np.concatenate([[0.0], np.geomspace(0.005, 0.05, 8), np.arange(0.06, 0.985, 0.02)])


def _fit_mixture(bin_n: Array) -> tuple[int, float, Array]:
    """Return the model of true pairs, the random fraction and the bin masses."""
    count_B = np.bincount(bin_n, minlength=len(_RANDOM_B))
    best: tuple[float, int, float] = (-np.inf, 0, 0.0)
    for fraction in _FRACTIONS.tolist():
        likelihood_G = np.log((1 - fraction) * _TRUE_GB + fraction * _RANDOM_B) @ count_B
        g = int(likelihood_G.argmax())
        best = max(best, (float(likelihood_G[g]), g, fraction))
    _, g, fraction = best
    return g, fraction, (1 - fraction) * _TRUE_GB[g] + fraction * _RANDOM_B


def random_fraction(percentile_n: Array) -> float:
    """Return the fraction of random counterparts; 0 unless a mixture fits better than true pairs with a long tail by
    the test of Vuong (Econometrica 1989, Eq. 4.2), where both models have three parameters.
    """
    if len(percentile_n) < MIN_ITEMS:
        return 0.0
    bin_n = _bins(percentile_n)
    g, fraction, mixture_B = _fit_mixture(bin_n)
    # If true pairs are hardly distinguishable from random pairs, the fraction of random pairs is not identifiable.
    if _CENTER_G[g] < _MIN_CENTER or fraction < _MIN_FRACTION:
        return 0.0
    count_B = np.bincount(bin_n, minlength=len(_RANDOM_B))
    long_tailed_B = _LONG_TAILED_GB[int((np.log(_LONG_TAILED_GB) @ count_B).argmax())]
    ratio_n = np.log(mixture_B / long_tailed_B)[bin_n]
    spread = float(ratio_n.std())
    return fraction if spread > 0 and float(ratio_n.mean()) / spread * len(bin_n) ** 0.5 > _MIN_VUONG_Z else 0.0


def random_stretches(percentile_n: Array) -> list[tuple[int, int]]:
    """Return ranges [start, stop) of randomly paired items, in row order."""
    bin_n = _bins(percentile_n)
    _, _, mixture_B = _fit_mixture(bin_n)
    random_n = _deviating_segment(percentile_n)
    true_B = mixture_B
    for _ in range(3):
        if int((~random_n).sum()) < _MIN_BLOCK_ITEMS:
            return []
        true_B = _TRUE_GB[_fit_mixture(bin_n[~random_n])[0]]
        random_n = _viterbi(np.log(_RANDOM_B / true_B)[bin_n])
    switches = int((random_n[1:] != random_n[:-1]).sum())
    blocks = float(np.log(np.where(random_n, _RANDOM_B[bin_n], true_B[bin_n])).sum()) - _SWITCH_PENALTY * switches
    scattered = float(np.log(mixture_B[bin_n]).sum())
    if not random_n.any() or switches > 2 * _MAX_BLOCKS or blocks - scattered < _MIN_EVIDENCE:
        return []
    while random_n.any():
        outside = float(percentile_n[~random_n].mean()) if not random_n.all() else 0.0
        stretches = _stretches(random_n)
        rejected = [(i, j) for i, j in stretches if not _is_random(percentile_n[i:j], outside)]
        if not rejected:
            return stretches
        # Items of rejected blocks lower the mean outside the other blocks, so check the other blocks again.
        for i, j in rejected:
            random_n[i:j] = False
    return []


def _stretches(mask_n: Array) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask_n, [False]]).astype(np.int8)))
    return [(i, j) for i, j in edges.reshape(-1, 2).tolist()]


def _is_random(percentile_k: Array, outside: float) -> bool:
    """Return whether a block is randomly paired. Two similar cases are rejected: hard items, with percentiles below the
    rest but above chance, and classes of nearly equal rows, with nearly constant rather than uniform percentiles.
    """
    size = len(percentile_k)
    inside, error = float(percentile_k.mean()), 0.29 / size**0.5  # 0.29 is the standard deviation of a uniform variable
    distance = float(np.abs(np.sort(percentile_k) - (np.arange(size) + 0.5) / size).max()) * size**0.5
    return (
        size >= _MIN_BLOCK_ITEMS
        and inside < 0.53 + 2.5 * error
        and outside - inside > max(0.2, _MIN_DROP_Z * error)
        and distance < _MAX_KOLMOGOROV
    )


def _deviating_segment(percentile_n: Array) -> Array:
    """Return the segment (or its complement) with the most significantly low mean, as an initial guess."""
    n = len(percentile_n)
    cut_C = np.unique(np.append(np.arange(0, n + 1, max(1, n // 128)), n))
    sum_C = np.concatenate([[0.0], np.cumsum(percentile_n - percentile_n.mean())])[cut_C]
    length_CC = (cut_C[None] - cut_C[:, None]).astype(np.float64)
    valid_CC = (length_CC >= _MIN_BLOCK_ITEMS) & (length_CC <= n - _MIN_BLOCK_ITEMS)
    scale_CC = np.sqrt(np.where(valid_CC, length_CC * (1 - length_CC / n), 1.0))
    value_CC = np.where(valid_CC, (sum_C[None] - sum_C[:, None]) / scale_CC, 0.0)
    i, j = np.unravel_index(int(np.abs(value_CC).argmax()), value_CC.shape)
    segment_n = np.zeros(n, dtype=np.bool_)
    segment_n[cut_C[i] : cut_C[j]] = True
    return segment_n if value_CC[i, j] < 0 else ~segment_n


def _viterbi(gain_n: Array) -> Array:
    """Return the best path of states, where True at item n adds `gain_n` and each change of state costs the penalty."""
    true, random = 0.0, 0.0
    back: list[tuple[bool, bool]] = []
    for gain in gain_n.tolist():
        to_true, stay_random = random - _SWITCH_PENALTY > true, random >= true - _SWITCH_PENALTY
        true, random = (
            random - _SWITCH_PENALTY if to_true else true,
            (random if stay_random else true - _SWITCH_PENALTY) + gain,
        )
        back.append((to_true, stay_random))
    state = random > true
    states = []
    for to_true, stay_random in reversed(back):
        states.append(state)
        state = stay_random if state else to_true
    return np.array(states[::-1], dtype=np.bool_)
