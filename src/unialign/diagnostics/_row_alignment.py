"""Does the pairing hold from the first row to the last? Blocks of wrong rows, scattered ones, files that slip by a row.

Shapes: `n` items that both have, `D` width, `o` offsets, `t` rows of a tile, `B` bins, `G` settings tried, `W` windows,
`L` rows of one.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign.ops import row_tiles

__all__ = ["WINDOW", "Order", "Shift", "Windows", "closeness", "order", "shifts"]

Array = NDArray[Any]


def _below(x: Array) -> Array:
    """Standard normal distribution function."""
    found: Array = torch.special.ndtr(torch.from_numpy(np.asarray(x, dtype=np.float64))).numpy()
    return found


# Rows that lie next to each other, read to see whether a file slips; how far it may, in rows.
WINDOW, _FARTHEST = 32, 3
# Random partners of each item that its true one is compared with.
_OFFSETS = 64
# Fewer items show nothing but luck.
_LEAST = 100
# Bins of closeness in standard normal units: the last one is open, for a good space lies far beyond it.
_EDGES_B = np.array([-np.inf, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, np.inf])
_UNIFORM_B = np.diff(_below(_EDGES_B))
# Nats that a change between paired and unpaired rows costs; evidence that blocks need beyond scattered rows.
_SWITCH, _EVIDENCE = 10.0, 8.0
_BLOCKS, _BLOCK_ITEMS = 6, 12
# z-values: of a mixture with random partners against one long-tailed kind of pair; of a shift by some rows.
_MIXED_Z, _SHIFT_Z = 2.0, 6.0
# Kolmogorov's distance from even spread, times sqrt(n): exceeded by luck once in 500.
_UNEVEN = 1.86
# z-value of the drop of closeness inside a block.
_DROP_Z = 5.0
# Centre of true pairs from which on random ones among them can be told; the smallest share that is worth a word.
_TOLD, _LEAST_SHARE = 1.25, 0.05


@dataclass(frozen=True)
class Order:
    """How the pairing of two modalities, or of one and the mean of its peers, depends on the row.

    Attributes:
        blocks: (first, last) row of each stretch whose true pairs are no closer than random ones.
        inside, outside: mean cosine of true pairs in these blocks, and elsewhere.
        random_share: share of the items outside them whose partner looks like a random row; 0 where nothing says so.
    """

    blocks: tuple[tuple[int, int], ...]
    inside: float
    outside: float
    random_share: float


@dataclass(frozen=True)
class Shift:
    """Row i of the first modality fits row i + `by` of the second.

    Attributes:
        start, stop: between which two rows it begins and ends, near each other where rows were read without a break;
            None: from the first row, to the last.
        cosine, as_is: mean cosine of rows `by` apart, and of the rows as they stand.
        z: how sure that is.
    """

    by: int
    start: tuple[int, int] | None
    stop: tuple[int, int] | None
    cosine: float
    as_is: float
    z: float


@dataclass(frozen=True)
class Windows:
    """Unit rows of stretches of neighbouring rows.

    Attributes:
        rows_WL: their row numbers.
        z: modality -> (W, L, D).
        usable: modality -> (W, L) bool.
    """

    rows_WL: NDArray[np.int64]
    z: dict[str, Tensor]
    usable: dict[str, Tensor]


def closeness(x_nD: Tensor, y_nD: Tensor, class_n: Array, *, seed: int) -> Array:
    """(n,) share of random pairs that each true pair is closer than; uniform for items that are paired at random.

    Similarities are centred by row and column first, s_ij = <x_i - mean x, y_j - mean y>, so that neither a gap nor a
    hub makes all pairs of a row close. Items of one class (right answers of each other) are no random pair.
    """
    n = len(x_nD)
    x_nD, y_nD = x_nD - x_nD.mean(0), y_nD - y_nD.mean(0)
    true_n = (x_nD * y_nD).sum(1).numpy()
    offset_o = np.random.default_rng(seed).permutation(np.arange(1, n))[:_OFFSETS]
    others = []
    for tile in row_tiles(n, n):
        row_t = np.arange(tile.start, tile.stop)
        partner_to = (row_t[:, None] + offset_o) % n
        value_to = np.take_along_axis((x_nD[tile] @ y_nD.mT).numpy(), partner_to, axis=1)
        others.append(value_to[class_n[row_t][:, None] != class_n[partner_to]])
    other = np.sort(np.concatenate(others))
    if not len(other):
        return np.full(n, np.nan)
    below_n = np.searchsorted(other, true_n, "left") + np.searchsorted(other, true_n, "right")
    return (below_n + 1) / (2 * len(other) + 2)


def order(rows_n: Array, cosine_n: Array, close_n: Array) -> Order:
    """Look for blocks of unpaired rows, then for scattered ones.

    Args:
        rows_n: ascending row numbers.
        cosine_n, close_n: cosine of each true pair and its `closeness`.
    """
    if len(rows_n) < _LEAST or not np.isfinite(close_n).all():
        return Order((), math.nan, math.nan, 0.0)
    edges_B = _below(_EDGES_B)
    bin_n = np.clip(np.searchsorted(edges_B, close_n, "right") - 1, 0, len(_UNIFORM_B) - 1)
    wrong_n = _blocks(close_n, bin_n)
    share = _random_share(bin_n[~wrong_n])
    starts = np.flatnonzero(wrong_n & ~np.concatenate([[False], wrong_n[:-1]]))
    ends = np.flatnonzero(wrong_n & ~np.concatenate([wrong_n[1:], [False]]))
    return Order(
        blocks=tuple((int(rows_n[i]), int(rows_n[j])) for i, j in zip(starts, ends, strict=True)),
        inside=float(cosine_n[wrong_n].mean()) if wrong_n.any() else math.nan,
        outside=float(cosine_n[~wrong_n].mean()),
        random_share=share,
    )


# --- the model: closeness is uniform for random partners, and a shifted normal in probit units for true ones -------


def _normal_GB(centre_G: Array, left_G: Array, right_G: Array) -> Array:
    """(G, B) bin masses of normals with two spreads, sigma_left below the centre and sigma_right above it."""
    weight_G = left_G / (left_G + right_G)
    t_GB = _EDGES_B[None] - centre_G[:, None]
    low_GB = 2 * weight_G[:, None] * _below(np.minimum(t_GB, 0) / left_G[:, None])
    high_GB = 2 * (1 - weight_G[:, None]) * (_below(np.maximum(t_GB, 0) / right_G[:, None]) - 0.5)
    return _masses(low_GB + high_GB)


def _masses(below_GB: Array) -> Array:
    found: Array = np.maximum(np.diff(below_GB, axis=1), 1e-9)
    return found


def _grid(*axes: Array) -> tuple[Array, ...]:
    return tuple(axis.reshape(-1) for axis in np.meshgrid(*axes, indexing="ij"))


_CENTRE_G, _SPREAD_G = _grid(np.arange(0.0, 7.01, 0.25), np.array([0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0]))
_PAIRED_GB = _normal_GB(_CENTRE_G, _SPREAD_G, _SPREAD_G)


def _uneven_GB(most_G: Array, power_G: Array, spread_G: Array) -> Array:
    """(G, B) bin masses where items are of every difficulty: centres `most` u^(1/power) with u uniform in (0, 1)."""
    u_K = (np.arange(64) + 0.5) / 64
    centre_GK = most_G[:, None] * u_K[None] ** (1 / power_G[:, None])
    edge_GKB = (_EDGES_B - centre_GK[..., None]) / spread_G[:, None, None]
    return _masses(_below(edge_GKB).mean(1))


# Spaces that are well paired, with a long tail of hard items.
_TAILED_GB = np.concatenate(
    [
        _normal_GB(*_grid(np.arange(0.0, 7.01, 0.25), np.geomspace(0.4, 6.0, 16), np.array([0.3, 0.5, 0.7, 1.0, 1.5]))),
        _uneven_GB(*_grid(np.arange(1.0, 9.01, 0.5), np.geomspace(0.5, 8.0, 9), np.array([0.7, 1.0, 1.3]))),
    ]
)
_SHARE_S = np.concatenate([[0.0], np.geomspace(0.005, 0.05, 8), np.arange(0.06, 0.985, 0.02)])


def _fit(bin_n: Array) -> tuple[Array, float, Array, float]:
    """Bin masses of true pairs, share of random ones among them, masses of the mixture, centre: the likeliest."""
    count_B = np.bincount(bin_n, minlength=len(_UNIFORM_B))
    best: tuple[float, int, float] = (-np.inf, 0, 0.0)
    for share in _SHARE_S.tolist():
        score_G = np.log((1 - share) * _PAIRED_GB + share * _UNIFORM_B) @ count_B
        g = int(score_G.argmax())
        best = max(best, (float(score_G[g]), g, share))
    _, g, share = best
    return _PAIRED_GB[g], share, (1 - share) * _PAIRED_GB[g] + share * _UNIFORM_B, float(_CENTRE_G[g])


def _random_share(bin_n: Array) -> float:
    """Share of random partners, if that explains the closeness better than pairs of one kind with a long tail.

    Vuong (Econometrica 1989, Eq. 4.2) compares the two models, which have three numbers each.
    """
    if len(bin_n) < _LEAST:
        return 0.0
    count_B = np.bincount(bin_n, minlength=len(_UNIFORM_B))
    _, share, mixture_B, centre = _fit(bin_n)
    tailed_B = _TAILED_GB[int((np.log(_TAILED_GB) @ count_B).argmax())]
    ratio_n = np.log(mixture_B / tailed_B)[bin_n]
    spread = float(ratio_n.std())
    # Pairs that are hardly told from random ones hide any number of random ones.
    if centre < _TOLD or share < _LEAST_SHARE:
        return 0.0
    return share if spread > 0 and float(ratio_n.mean()) / spread * len(bin_n) ** 0.5 > _MIXED_Z else 0.0


def _blocks(close_n: Array, bin_n: Array) -> Array:
    """(n,) bool: items of stretches that are paired at random, where stretches say more than scattered rows do."""
    none_n = np.zeros(len(bin_n), dtype=np.bool_)
    _, _, mixture_B, _ = _fit(bin_n)
    wrong_n = _lower_side(close_n)
    paired_B = mixture_B
    for _ in range(3):
        if int((~wrong_n).sum()) < _BLOCK_ITEMS:
            return none_n
        paired_B, _, _, _ = _fit(bin_n[~wrong_n])
        wrong_n = _path(np.log(_UNIFORM_B / paired_B)[bin_n])
    if not wrong_n.any():
        return none_n
    switches = int((wrong_n[1:] != wrong_n[:-1]).sum())
    path = float(np.log(np.where(wrong_n, _UNIFORM_B[bin_n], paired_B[bin_n])).sum()) - _SWITCH * switches
    if switches > 2 * _BLOCKS or path - float(np.log(mixture_B[bin_n]).sum()) < _EVIDENCE:
        return none_n
    # What is no block joins the others, and the others are then less close: look again.
    while wrong_n.any():
        edges = np.flatnonzero(np.diff(np.concatenate([[False], wrong_n, [False]]).astype(np.int8)))
        outside = float(close_n[~wrong_n].mean()) if not wrong_n.all() else 0.0
        none = [(i, j) for i, j in edges.reshape(-1, 2).tolist() if not _is_random(close_n[i:j], outside)]
        if not none:
            break
        for i, j in none:
            wrong_n[i:j] = False
    return wrong_n


def _is_random(close_k: Array, outside: float) -> bool:
    """Whether a stretch is as close as random pairs are, and much less so than the rows outside it.

    A class of hard items is farther than the rest and still closer than chance; one whose rows all lie in one place is
    neither close nor far, but always the same.
    """
    many = len(close_k)
    inside, luck = float(close_k.mean()), 0.29 / many**0.5
    uneven = float(np.abs(np.sort(close_k) - (np.arange(many) + 0.5) / many).max()) * many**0.5
    drop = max(0.2, _DROP_Z * luck)
    return many >= _BLOCK_ITEMS and inside < 0.53 + 2.5 * luck and outside - inside > drop and uneven < _UNEVEN


def _lower_side(close_n: Array) -> Array:
    """(n,) bool: one stretch, or all but one, whose mean differs most from the others' for its length."""
    n = len(close_n)
    step = max(1, n // 128)
    cut_C = np.unique(np.append(np.arange(0, n + 1, step), n))
    sum_C = np.concatenate([[0.0], np.cumsum(close_n - close_n.mean())])[cut_C]
    length_CC = (cut_C[None] - cut_C[:, None]).astype(np.float64)
    valid_CC = (length_CC >= _BLOCK_ITEMS) & (length_CC <= n - _BLOCK_ITEMS)
    scale_CC = np.sqrt(np.where(valid_CC, length_CC * (1 - length_CC / n), 1.0))
    value_CC = np.where(valid_CC, (sum_C[None] - sum_C[:, None]) / scale_CC, 0.0)
    i, j = np.unravel_index(int(np.abs(value_CC).argmax()), value_CC.shape)
    within_n = np.zeros(n, dtype=np.bool_)
    within_n[cut_C[i] : cut_C[j]] = True
    return within_n if value_CC[i, j] < 0 else ~within_n


def _path(gain_n: Array) -> Array:
    """(n,) bool: the likeliest sequence of two states (Viterbi), where True gains `gain_n` and a change costs."""
    paired, random = 0.0, 0.0
    back: list[tuple[bool, bool]] = []
    for gain in gain_n.tolist():
        from_random, stay = random - _SWITCH > paired, random >= paired - _SWITCH
        paired, random = (
            random - _SWITCH if from_random else paired,
            (random if stay else paired - _SWITCH) + gain,
        )
        back.append((from_random, stay))
    state = random > paired
    states = []
    for from_random, stay in reversed(back):
        states.append(state)
        state = stay if state else from_random
    return np.array(states[::-1], dtype=np.bool_)


# --- files that slip -----------------------------------------------------------------------------------------------


def shifts(windows: Windows, a: str, b: str, *, random_cosine: float) -> tuple[Shift, ...]:
    """Stretches of rows in which row i of `a` is closer to a neighbour of row i of `b` than to that row itself."""
    rows_WL, x_WLD, y_WLD = windows.rows_WL, windows.z[a], windows.z[b]
    both_WL = windows.usable[a] & windows.usable[b]
    if rows_WL.size < WINDOW:
        return ()
    now_WL = (x_WLD * y_WLD).sum(-1).numpy()
    gains: dict[int, Array] = {}
    for by in [k for k in range(-_FARTHEST, _FARTHEST + 1) if k]:
        moved_WL = (x_WLD * y_WLD.roll(-by, 1)).sum(-1).numpy() - now_WL
        known_WL = (both_WL & windows.usable[b].roll(-by, 1)).numpy()
        known_WL[:, slice(-by, None) if by > 0 else slice(0, -by)] = False
        gains[by] = np.where(known_WL, moved_WL, np.nan)
    free_W = np.ones(len(rows_WL), dtype=np.bool_)
    found = []
    while free_W.any():
        z, first, last, by = max((*_best_run(gain_WL, free_W), by) for by, gain_WL in gains.items())
        if z < _SHIFT_Z:
            break
        gain_WL = gains[by]
        inside = slice(first, last + 1)
        cosine = float(np.nanmean((gain_WL + now_WL)[inside]))
        gain = float(np.nanmean(gain_WL[inside]))
        # True pairs of a rotated modality may lie farther than random ones: then any neighbour is closer.
        if cosine - random_cosine > gain / 2:
            start, stop = _edge(rows_WL, gain_WL, first, -1), _edge(rows_WL, gain_WL, last, 1)
            found.append(Shift(by, start, stop, cosine, cosine - gain, z))
        free_W[max(0, first - 1) : last + 2] = False
    return tuple(sorted(found, key=lambda shift: shift.start or (-1, -1)))


def _best_run(gain_WL: Array, free_W: Array) -> tuple[float, int, int]:
    """z-value, first and last window of the run of windows whose mean gain is surest."""
    known_WL = ~np.isnan(gain_WL) & free_W[:, None]
    value_WL = np.where(known_WL, gain_WL, 0.0)
    count_C, sum_C, square_C = (
        np.concatenate([[0.0], np.cumsum(part_WL.sum(1))]) for part_WL in (known_WL, value_WL, value_WL**2)
    )
    count_CC = count_C[None] - count_C[:, None]
    whole_CC = np.concatenate([[0.0], np.cumsum(free_W)])
    length_CC = np.arange(len(count_C))[None] - np.arange(len(count_C))[:, None]
    valid_CC = (count_CC >= 8) & (whole_CC[None] - whole_CC[:, None] == length_CC)
    count_CC = np.where(valid_CC, count_CC, 1.0)
    mean_CC = (sum_C[None] - sum_C[:, None]) / count_CC
    spread_CC = np.sqrt(np.maximum((square_C[None] - square_C[:, None]) / count_CC - mean_CC**2, 1e-12))
    z_CC = np.where(valid_CC, mean_CC / spread_CC * np.sqrt(count_CC), -np.inf)
    first, stop = np.unravel_index(int(z_CC.argmax()), z_CC.shape)
    return float(z_CC[first, stop]), int(first), int(stop) - 1


def _edge(rows_WL: Array, gain_WL: Array, window: int, side: int) -> tuple[int, int] | None:
    """The two rows between which the gain begins (side -1) or ends (side 1), in the window or the one beside it."""
    beside = window + side
    near = [window] if not 0 <= beside < len(rows_WL) else sorted((window, beside))
    row_l, gain_l = rows_WL[near].reshape(-1)[::side], np.nan_to_num(gain_WL[near].reshape(-1))[::side]
    at = int(np.cumsum(gain_l).argmax())
    if len(near) == 1 and at >= len(row_l) - 1 - 2 * _FARTHEST:
        return None
    low, high = sorted((int(row_l[at]), int(row_l[min(at + 1, len(row_l) - 1)])))
    return low, high
