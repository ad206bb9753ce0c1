"""All numbers about a space: whole passes over the rows, close looks at a sample.

Shapes: `N` rows, `n` sampled items, `D` width.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unialign.diagnostics._cka import shared_structure
from unialign.diagnostics._duplicates import Copies, copies
from unialign.diagnostics._modality_alignment import measure_orders
from unialign.diagnostics._pair import Pair, measure_pair
from unialign.diagnostics._row_alignment import Order, Windows
from unialign.diagnostics._scan import Scan
from unialign.diagnostics._sources import Material
from unialign.diagnostics._statistics import Sample, Value, estimate
from unialign.diagnostics._thresholds import ALIKE, COLLAPSED, OUTLIER, STRUCTURE_P, UNPAIRED
from unialign.geometry import conflict_over_anchors, effective_rank
from unialign.metrics import retrieval
from unialign.ops import log_kernel

__all__ = ["Lengths", "Measured", "Single", "measure"]

# Most items for what costs (modalities x items) squared.
_CONFLICT_CELLS = 2**24
_LABELLED = 1024
_TURNED = 512


@dataclass(frozen=True)
class Lengths:
    """Norms of the usable rows of a modality.

    Attributes:
        low, high: 5 % and 95 % quantiles.
        long, short: how many rows are outliers, ten times longer or shorter than the median; `first` are the first.
    """

    mean: float
    deviation: float
    low: float
    median: float
    high: float
    least: float
    most: float
    long: int
    short: int
    first: tuple[int, ...]


@dataclass(frozen=True)
class Single:
    """One modality.

    Attributes:
        rows, absent, usable: present rows, absent ones, and present ones that have a direction.
        cosine: mean cosine of two different rows; None with fewer than two in the sample.
        rank, possible_rank: effective rank, and the most that the sample allows.
        uniformity: log mean exp(-2 |x - y|^2).
        turned: share of queries whose first answer among these rows is another one by dot product than by cosine.
        looked: rows in the sample.
    """

    width: int
    dtype: str
    rows: int
    absent: int
    usable: int
    scan: Scan
    copies: Copies
    lengths: Lengths | None
    cosine: Value | None
    rank: float
    possible_rank: int
    uniformity: float
    turned: float
    looked: int


@dataclass(frozen=True)
class Measured:
    """Everything.

    `structure` is CKA and p-value of pairs of unequal width; `label_map` is mAP and its chance; `orders` are those of
    one modality against its peers, or of two that have only each other.
    """

    singles: dict[str, Single]
    pairs: dict[tuple[str, str], Pair]
    structure: dict[tuple[str, str], tuple[float, float]]
    conflict: dict[str, float]
    label_map: tuple[float, float] | None
    apart: list[tuple[str, str]]
    orders: dict[tuple[str, ...], Order]


def measure(material: Material, scans: Mapping[str, Scan], sample: Sample, windows: Windows, *, seed: int) -> Measured:
    """Take all numbers."""
    singles = {name: _single(material, name, scan, sample) for name, scan in scans.items()}
    pairs: dict[tuple[str, str], Pair] = {}
    structure: dict[tuple[str, str], tuple[float, float]] = {}
    apart: list[tuple[str, str]] = []
    for a, b in combinations(singles, 2):
        common = sample.both(a, b)
        if len(common) < 2:
            apart.append((a, b))
        elif singles[a].width == singles[b].width:
            pairs[a, b] = measure_pair(sample, windows, a, b, seed=seed)
        else:
            structure[a, b] = shared_structure(sample.z[a][common], sample.z[b][common], seed=seed)
    one_space = len({single.width for single in singles.values()}) == 1
    return Measured(
        singles=singles,
        pairs=pairs,
        structure=structure,
        conflict=_conflict(sample) if one_space and pairs else {},
        label_map=_label_map(sample, list(pairs)) if sample.labels_n is not None else None,
        apart=apart,
        orders=measure_orders(sample, _comparable(singles, pairs), seed=seed),
    )


def _comparable(singles: Mapping[str, Single], pairs: Mapping[tuple[str, str], Pair]) -> list[tuple[str, str]]:
    """Pairs of which a wrong order can be told: two modalities, not collapsed, in one coordinate system."""
    spread = {name for name, s in singles.items() if s.cosine is not None and s.cosine.mean < COLLAPSED}
    return [
        pair
        for pair, p in pairs.items()
        if p.directions
        and p.identical < ALIKE
        and spread.issuperset(pair)
        # Separate encoders arrange the items alike; whole classes then lie close by luck.
        and not (p.beaten < UNPAIRED and p.structure_p <= STRUCTURE_P)
    ]


def _single(material: Material, name: str, scan: Scan, sample: Sample) -> Single:
    modality = material.modalities[name]
    z_nD = sample.z[name][sample.usable[name]]
    spread = len(z_nD) >= 2
    rows = int(modality.present_N.sum())
    return Single(
        width=modality.rows.shape[1],
        dtype=modality.rows.dtype if modality.rows.dtype == "bfloat16" else np.dtype(modality.rows.dtype).name,
        rows=rows,
        absent=material.items - rows,
        usable=int(scan.usable_N.sum()),
        scan=scan,
        copies=copies(scan, modality.rows, material.ids_N),
        lengths=_lengths(scan),
        cosine=_mean_cosine(z_nD, sample.weights_Rn[:, sample.usable[name]]) if spread else None,
        rank=float(effective_rank(z_nD)) if spread else math.nan,
        possible_rank=min(modality.rows.shape[1], len(z_nD) - 1),
        uniformity=_uniformity(z_nD) if spread else math.nan,
        turned=_turned(sample, name, scan),
        looked=len(z_nD),
    )


def _turned(sample: Sample, name: str, scan: Scan) -> float:
    """How often raw dot products find another first answer than cosines do, asked by the next modality of its width."""
    near = [m for m in sample.z if m != name and sample.z[m].shape[1] == sample.z[name].shape[1]]
    query = near[0] if near else name
    rows = sample.both(query, name)[:_TURNED]
    if len(rows) < 2:
        return 0.0
    cosine_nn = sample.z[query][rows] @ sample.z[name][rows].mT
    if query == name:
        cosine_nn.fill_diagonal_(-torch.inf)
    length_n = torch.from_numpy(scan.norms_N[sample.rows_n[rows.numpy()]].astype(np.float64))
    return float((cosine_nn.argmax(1) != (cosine_nn * length_n).argmax(1)).double().mean())


def _lengths(scan: Scan) -> Lengths | None:
    row_u = np.flatnonzero(scan.usable_N)
    if not len(row_u):
        return None
    norm_u = scan.norms_N[row_u].astype(np.float64)
    low, median, high = np.quantile(norm_u, [0.05, 0.5, 0.95])
    long_u, short_u = norm_u > OUTLIER * median, norm_u < median / OUTLIER
    return Lengths(
        mean=float(norm_u.mean()),
        deviation=float(norm_u.std()),
        low=float(low),
        median=float(median),
        high=float(high),
        least=float(norm_u.min()),
        most=float(norm_u.max()),
        long=int(long_u.sum()),
        short=int(short_u.sum()),
        first=tuple(row_u[long_u | short_u][:5].tolist()),
    )


def _mean_cosine(z_nD: Tensor, weights_Rn: Tensor) -> Value:
    """mean_{i != j} <z_i, z_j> = (|sum z|^2 - n) / (n (n - 1)), and the same under weights."""

    def mean(weights_Kn: Tensor) -> Tensor:
        squares_K, sum_K = weights_Kn.square().sum(1), weights_Kn.sum(1)
        return ((weights_Kn @ z_nD).square().sum(1) - squares_K) / (sum_K.square() - squares_K)

    return estimate(float(mean(torch.ones(1, len(z_nD), dtype=torch.float64))), mean(weights_Rn))


def _uniformity(z_nD: Tensor) -> float:
    """log mean_{i != j} exp(-2 |z_i - z_j|^2) (Wang & Isola 2020), in tiles."""
    total = -float(len(z_nD))  # the self pairs, one each
    for tile_tD in torch.split(z_nD, 1024):
        total += float(log_kernel(tile_tD @ z_nD.mT, kernel="wang_isola", temperature=1.0).exp().sum())
    return math.log(max(total, 1e-300) / (len(z_nD) * (len(z_nD) - 1)))


def _conflict(sample: Sample) -> dict[str, float]:
    """Means over all anchors of the conflict of InfoNCE's forces at temperature 0.07."""
    names = list(sample.z)
    many = max(32, int(_CONFLICT_CELLS**0.5 / len(names)))
    items = min(many, len(sample.rows_n))
    chosen = np.linspace(0, len(sample.rows_n) - 1, items).astype(np.int64)
    z = {name: sample.z[name][chosen] for name in names}
    present = {name: sample.usable[name][chosen] for name in names}
    if any(not bool(mask.any()) for mask in present.values()):
        return {}
    means = conflict_over_anchors(z, present=present).means()
    known = {key: means[key] for key in ("zeta", "zeta_neg", "chi") if math.isfinite(means[key])}
    return known | {"conflict_items": float(items)}


def _label_map(sample: Sample, pairs: list[tuple[str, str]]) -> tuple[float, float] | None:
    """Mean average precision of "same class" over all directions, and the same of shuffled classes."""
    labels_n = sample.labels_n
    if labels_n is None:
        return None
    rng = np.random.default_rng(0)
    found: list[tuple[float, float]] = []
    for a, b in pairs:
        rows = sample.both(a, b).numpy()
        rows = rows[labels_n[rows] >= 0][:_LABELLED]
        class_n = labels_n[rows]
        if len(np.unique(class_n)) < 2:
            continue
        shuffled_n = rng.permutation(class_n)
        for q, g in ((a, b), (b, a)):
            x, y = sample.z[q][rows], sample.z[g][rows]
            maps = [retrieval(x, y, query_ids=class_n, gallery_ids=other_n).map for other_n in (class_n, shuffled_n)]
            found.append((maps[0], maps[1]))
    if not found:
        return None
    mean: Any = np.mean(found, axis=0)
    return float(mean[0]), float(mean[1])
