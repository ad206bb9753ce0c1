"""Measure mixed pools, distributions, cut-offs and truncation on a bounded number of items of the sample.

Shapes: `n` sampled items, `k` measured items, `p` pairs, `D` dim, `R` resamples.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign.diagnostics._cutoffs import Cutoff, measure_cutoffs
from unialign.diagnostics._estimate import Estimate, difference, estimate
from unialign.diagnostics._mixing import Mixing, measure_mixing
from unialign.diagnostics._modality import ModalityStats
from unialign.diagnostics._near_rows import NearRows, connected
from unialign.diagnostics._pair import PairStats, positive_classes
from unialign.diagnostics._sampling import ItemSample
from unialign.diagnostics._shape import ShapeStats, cosine_deviation, measure_shape
from unialign.diagnostics._truncation import (
    Direction,
    TruncationStats,
    average_truncation,
    measure_truncation,
    principal_directions,
)
from unialign.diagnostics._unit import unit

# Maximum number of items of a mixed pool, of the comparison of two distributions, and of truncated retrieval. With more
# than three pairs, the number shrinks with the square root of the number of pairs, so that all pairs together take as
# long as three. Cut-offs are computed from four times as many items, since few random pairs exceed them.
_MAX_ITEMS, _LEAST_ITEMS, _PAIRS, _CUTOFF_ITEMS = 256, 128, 3, 4
# Minimum number of items for these measurements.
_MIN_ITEMS = 16

PairName = tuple[str, str]


@dataclass(frozen=True)
class PairDetails:
    asymmetry: Estimate  # R@1 of a->b minus R@1 of b->a
    mixing: Mixing
    centered_mixing: Mixing  # after subtracting each modality's mean
    shape: ShapeStats
    cutoffs: tuple[Cutoff, ...]


@dataclass(frozen=True)
class SpaceDetails:
    pairs: dict[PairName, PairDetails] = field(default_factory=dict)
    deviation: dict[str, Estimate] = field(default_factory=dict)  # standard deviation of a modality's cosines
    shared: Estimate | None = None  # squared length of the mean of all unit rows, with equal weights of modalities
    mixing: Mixing | None = None  # pool of all modalities; None for fewer than three modalities or different dims
    truncation: TruncationStats | None = None


def measure_details(
    sample: ItemSample, modalities: Mapping[str, ModalityStats], pairs: Mapping[PairName, PairStats], *, seed: int
) -> SpaceDetails:
    near = {name: m.near for name, m in modalities.items()}
    judged = {
        pair: stats
        for pair, stats in pairs.items()
        if stats.directions and not stats.is_copy and stats.items >= _MIN_ITEMS
    }
    one_dim = len({m.dim for m in modalities.values()}) == 1
    names = list(dict.fromkeys(name for pair in judged for name in pair))
    most = measured_items(len(judged))
    deviation = {name: _deviation(sample, near[name], name, most) for name in names}
    return SpaceDetails(
        pairs={pair: _pair(sample, near, pair, stats, most, seed=seed) for pair, stats in judged.items()},
        deviation={name: found for name, found in deviation.items() if found is not None},
        shared=shared_component(sample) if one_dim and pairs else None,
        mixing=_all_modalities(sample, near, names, most, seed=seed) if one_dim and len(names) > 2 else None,
        truncation=_truncation(sample, near, list(judged), most) if one_dim else None,
    )


def measured_items(pairs: int) -> int:
    return max(_LEAST_ITEMS, int(_MAX_ITEMS * min(1.0, (_PAIRS / max(pairs, 1)) ** 0.5)))


def _spread(rows: Tensor, most: int) -> Tensor:
    return torch.from_numpy(np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(np.int64))


def _pair(
    sample: ItemSample, near: Mapping[str, NearRows], pair: PairName, stats: PairStats, most: int, *, seed: int
) -> PairDetails:
    a, b = pair
    rows, class_n = sample.common(a, b), positive_classes(sample, near, a, b)
    at = _spread(rows, _CUTOFF_ITEMS * most)
    x_kD, y_kD = sample.z[a][rows[at]], sample.z[b][rows[at]]
    cutoffs = measure_cutoffs(x_kD, y_kD, class_n[at.numpy()], sample.weights_Rn[:, rows[at]])
    at = _spread(rows, most)
    rows, class_k = rows[at], class_n[at.numpy()]
    z, weights_Rk = {name: sample.z[name][rows] for name in pair}, sample.weights_Rn[:, rows]
    usable = {name: sample.usable[name][rows] for name in pair}
    centered = {name: unit(z_kD - z_kD.mean(0)) for name, z_kD in z.items()}
    first, second = (direction.recall[1] for direction in stats.directions.values())
    return PairDetails(
        asymmetry=difference(first, second),
        mixing=measure_mixing(z, usable, class_k, weights_Rk, seed=seed),
        centered_mixing=measure_mixing(centered, usable, class_k, weights_Rk, seed=seed),
        shape=measure_shape(z[a], z[b], class_k, weights_Rk, seed=seed),
        cutoffs=cutoffs,
    )


def _deviation(sample: ItemSample, near: NearRows, name: str, most: int) -> Estimate | None:
    rows = sample.usable[name].nonzero().flatten()
    rows = rows[_spread(rows, most)]
    code_k = torch.from_numpy(connected(sample.ids_n[rows.numpy()], near.code_n[rows.numpy()]))
    different_kk = code_k[:, None] != code_k
    if not bool(different_kk.any()):
        return None
    z_kD = sample.z[name][rows]
    return cosine_deviation(z_kD @ z_kD.mT, different_kk, sample.weights_Rn[:, rows])


def shared_component(sample: ItemSample) -> Estimate | None:
    """Return |mean over modalities of E z|^2, the fraction of the squared length of the rows that is due to one common
    direction.
    """
    names = [name for name in sample.z if bool(sample.usable[name].any())]
    z, usable = [sample.z[name] for name in names], [sample.usable[name].double() for name in names]

    def value(weights_Kn: Tensor) -> Tensor:
        # Each row has the weight w_i / (M W_m), where W_m is the sum of the weights of its modality.
        scale_KM = torch.stack([1 / (len(names) * (weights_Kn @ mask_n)) for mask_n in usable], 1)
        total_KD = sum(scale_KM[:, m, None] * (weights_Kn @ z_nD) for m, z_nD in enumerate(z))
        assert isinstance(total_KD, Tensor)
        same_K, count_K = torch.zeros(len(weights_Kn)), torch.zeros(len(weights_Kn))
        squared_Kn = weights_Kn.square()
        for p in range(len(names)):
            for q in range(len(names)):
                scale_K = scale_KM[:, p] * scale_KM[:, q]
                same_K = same_K + scale_K * (squared_Kn @ (z[p] * z[q]).sum(1))
                count_K = count_K + scale_K * (squared_Kn @ (usable[p] * usable[q]))
        return (total_KD.square().sum(1) - same_K) / (1 - count_K)

    whole = float(value(torch.ones(1, len(sample.rows_n), dtype=torch.float64)))
    return estimate(whole, value(sample.weights_Rn), minimum=-1.0, maximum=1.0) if np.isfinite(whole) else None


def _all_modalities(
    sample: ItemSample, near: Mapping[str, NearRows], names: list[str], most: int, *, seed: int
) -> Mixing | None:
    several_n = torch.stack([sample.usable[name] for name in names]).sum(0) >= 2
    rows = several_n.nonzero().flatten()
    if len(rows) < _MIN_ITEMS:
        return None
    rows = rows[_spread(rows, most)]
    usable = {name: sample.usable[name][rows] for name in names}
    if not all(bool(usable_k.any()) for usable_k in usable.values()):
        return None
    class_k = _classes(sample, near, names, rows.numpy())
    z = {name: sample.z[name][rows] for name in names}
    return measure_mixing(z, usable, class_k, sample.weights_Rn[:, rows], seed=seed)


def _classes(
    sample: ItemSample, near: Mapping[str, NearRows], names: list[str], rows_k: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return classes of items that are positives of each other, since their rows are equal in any modality."""
    codes = [near[name].code_n[rows_k] for name in names]
    return connected(sample.ids_n[rows_k], *codes)


def _truncation(
    sample: ItemSample, near: Mapping[str, NearRows], pairs: list[PairName], most: int
) -> TruncationStats | None:
    """Measure every second item; the principal directions are computed from the other items."""
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    odd_n = torch.arange(len(sample.rows_n)) % 2 == 1
    axes_Dr = principal_directions([sample.z[name][sample.usable[name] & odd_n] for name in names])
    found: list[Direction] = []
    items = 0
    for a, b in pairs:
        rows, class_n = sample.common(a, b), positive_classes(sample, near, a, b)
        at = (~odd_n[rows]).nonzero().flatten()
        if len(at) < _MIN_ITEMS:
            continue
        at = at[_spread(at, most)]
        x_kD, y_kD = sample.z[a][rows[at]], sample.z[b][rows[at]]
        items = max(items, len(at))
        found += measure_truncation(x_kD, y_kD, class_n[at.numpy()], sample.weights_Rn[:, rows[at]], axes_Dr)
    return average_truncation(found, items=items)
