"""Find blocks of unpaired rows, and scattered unpaired rows.

Each modality is compared with the mean of the others, so that a fault is reported only for the faulty modality. The
statistic of an item is the percentile of its true pair's similarity among random pairs.

Shapes: `n` sampled items, `k` items compared, `D` dimension, `o` offsets, `t` rows of a tile.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign.diagnostics._mispairing import MIN_ITEMS, random_fraction, random_stretches
from unialign.diagnostics._sampling import ItemSample
from unialign.ops import row_tiles

Array = NDArray[Any]

# Number of random counterparts per item; their similarities form the reference distribution.
_OFFSETS = 64


@dataclass(frozen=True)
class RowAlignment:
    """Randomly paired rows of a modality: the blocks, and the fraction of such rows outside the blocks."""

    blocks: tuple[tuple[int, int], ...]  # (first, last) row of each range of randomly paired rows
    cosine_inside: float  # mean cosine of true pairs in the blocks; NaN if not measured
    cosine_outside: float  # mean cosine of true pairs outside the blocks; NaN if not measured
    random_fraction: float  # fraction of random counterparts outside the blocks; 0 without evidence of such rows


def measure_row_alignment(
    sample: ItemSample, pairs: Sequence[tuple[str, str]], *, seed: int
) -> dict[tuple[str, ...], RowAlignment]:
    """Compare each modality with all others that are comparable; two modalities that are comparable only with each
    other share one entry.
    """
    peers: dict[str, list[str]] = {}
    for a, b in pairs:
        peers.setdefault(a, []).append(b)
        peers.setdefault(b, []).append(a)
    found: dict[tuple[str, ...], RowAlignment] = {}
    for name, others in peers.items():
        exclusive = len(others) == 1 and len(peers[others[0]]) == 1
        key = tuple(n for n in sample.z if n == name or (exclusive and n in others))
        if key not in found:
            found[key] = _against_peers(sample, name, others, seed=seed)
    return found


def _against_peers(sample: ItemSample, name: str, peers: Sequence[str], *, seed: int) -> RowAlignment:
    count_n = torch.stack([sample.usable[peer] for peer in peers]).sum(0)
    # Exclude rows shared by several items, since they match all of these items.
    unique_n = torch.from_numpy(~np.any([_shared_rows(sample, m) for m in (name, *peers)], axis=0))
    at_k = (sample.usable[name] & (count_n > 0) & unique_n).nonzero().flatten()
    if len(at_k) < 2:
        return align_rows(np.empty(0), np.empty(0), np.empty(0))
    mean_kD = torch.stack([_centered(sample, peer) for peer in peers]).sum(0)[at_k] / count_n[at_k, None]
    percentile_k = pair_percentiles(sample.z[name][at_k], mean_kD, sample.ids_n[at_k.numpy()], seed=seed)
    cosines = torch.stack([(sample.z[name][at_k] * sample.z[peer][at_k]).sum(1) for peer in peers]).sum(0)
    return align_rows(sample.rows_n[at_k.numpy()], (cosines / count_n[at_k]).numpy(), percentile_k)


def _centered(sample: ItemSample, name: str) -> Tensor:
    """Return rows minus their mean; unusable rows are 0."""
    usable_n1 = sample.usable[name][:, None]
    mean_D = sample.z[name].sum(0) / usable_n1.sum().clamp(min=1)
    return torch.where(usable_n1, sample.z[name] - mean_D, 0.0)


def _shared_rows(sample: ItemSample, name: str) -> NDArray[np.bool_]:
    """Return a mask of the items whose row equals that of an item with a different id."""
    _, group_n = np.unique(sample.checksums[name], return_inverse=True)
    _, id_n = np.unique(sample.ids_n, return_inverse=True)
    low_g, high_g = np.full(int(group_n.max()) + 1, len(group_n)), np.full(int(group_n.max()) + 1, -1)
    np.minimum.at(low_g, group_n, id_n)
    np.maximum.at(high_g, group_n, id_n)
    return np.asarray(sample.usable[name].numpy() & (low_g < high_g)[group_n])


def pair_percentiles(x_nD: Tensor, y_nD: Tensor, id_n: Array, *, seed: int) -> Array:
    """Return, for each true pair, the fraction of random pairs that are less similar, which is uniformly distributed if
    the rows are unpaired. Similarities are centered by row and column, s_ij = <x_i - mean x, y_j - mean y>, so that
    neither a gap nor a hub makes all pairs of a row similar.
    """
    n = len(x_nD)
    x_nD, y_nD = x_nD - x_nD.mean(0), y_nD - y_nD.mean(0)
    true_n = (x_nD * y_nD).sum(1).numpy()
    offset_o = np.random.default_rng(seed).permutation(np.arange(1, n))[:_OFFSETS]
    others = []
    for tile in row_tiles(n, n):
        row_t = np.arange(tile.start, tile.stop)
        counterpart_to = (row_t[:, None] + offset_o) % n
        value_to = np.take_along_axis((x_nD[tile] @ y_nD.mT).numpy(), counterpart_to, axis=1)
        others.append(value_to[id_n[row_t][:, None] != id_n[counterpart_to]])
    other = np.sort(np.concatenate(others))
    if not len(other):
        return np.full(n, np.nan)
    below_n = np.searchsorted(other, true_n, "left") + np.searchsorted(other, true_n, "right")
    return (below_n + 1) / (2 * len(other) + 2)


def align_rows(rows_n: Array, cosine_n: Array, percentile_n: Array) -> RowAlignment:
    if len(rows_n) < MIN_ITEMS or not np.isfinite(percentile_n).all():
        return RowAlignment((), math.nan, math.nan, 0.0)
    inside_n = np.zeros(len(rows_n), dtype=np.bool_)
    stretches = random_stretches(percentile_n)
    for start, stop in stretches:
        inside_n[start:stop] = True
    return RowAlignment(
        blocks=tuple((int(rows_n[start]), int(rows_n[stop - 1])) for start, stop in stretches),
        cosine_inside=float(cosine_n[inside_n].mean()) if stretches else math.nan,
        cosine_outside=float(cosine_n[~inside_n].mean()),
        random_fraction=random_fraction(percentile_n[~inside_n]),
    )
