"""Compute all measurements for the findings and the report."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.diagnostics import _limits as limits
from unialign.diagnostics._batch_neighbors import BatchNeighbors, measure_batch_neighbors
from unialign.diagnostics._cka import debiased_cka
from unialign.diagnostics._copies import CopyStats, compare_copies
from unialign.diagnostics._details import PairName, SpaceDetails, measure_details
from unialign.diagnostics._modality import ModalityStats, measure_modality
from unialign.diagnostics._pair import DirectionStats, PairStats, measure_pair
from unialign.diagnostics._proposed_ids import propose_ids
from unialign.diagnostics._row_alignment import RowAlignment, measure_row_alignment
from unialign.diagnostics._sampling import ItemSample, RowWindows
from unialign.diagnostics._scan import ModalityScan
from unialign.geometry import conflict_over_anchors
from unialign.metrics import retrieval
from unialign.readers import Collection

# Limits on (modalities x items)^2 for the conflict, and on the number of items for the label mAP.
_MAX_CONFLICT_CELLS, _MAX_LABELED = 2**24, 1024


@dataclass(frozen=True)
class Measurements:
    data: Collection
    modalities: dict[str, ModalityStats]
    pairs: dict[PairName, PairStats]  # pairs of equal dim with at least two common items
    cka: dict[PairName, tuple[float, float]]  # debiased CKA and its p-value, for pairs of different dims
    no_overlap: list[PairName]  # pairs with fewer than two common items
    # One entry per modality, which is compared with all others; if there are only two modalities, they share an entry.
    row_alignment: dict[tuple[str, ...], RowAlignment]
    conflict: dict[str, float]  # zeta, zeta_neg and chi, averaged over the anchors; empty if undefined
    details: SpaceDetails  # mixed pools, distributions, cut-offs and truncation
    neighbors: dict[
        str, BatchNeighbors
    ]  # similar negatives of a training batch; without modalities of few distinct rows
    label_map: tuple[float, float] | None  # mean average precision of labels across modalities, and its chance level
    proposed_ids: (
        NDArray[np.int64] | None
    )  # ids (N,) shared by items with equal or nearly equal rows; None if there are no such rows


def directions_of(pairs: Mapping[PairName, PairStats]) -> dict[str, DirectionStats]:
    return {name: direction for stats in pairs.values() for name, direction in stats.directions.items()}


def names_of(pairs: Iterable[PairName]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for pair in pairs for name in pair))


def measure(
    data: Collection,
    scans: Mapping[str, ModalityScan],
    sample: ItemSample,
    windows: RowWindows,
    *,
    batch_size: int,
    seed: int,
) -> Measurements:
    modalities = {name: measure_modality(data, name, scan, sample) for name, scan in scans.items()}
    common = {(a, b): sample.common(a, b) for a, b in combinations(modalities, 2)}
    overlapping = [pair for pair, rows in common.items() if len(rows) >= 2]
    of_one_dim = [(a, b) for a, b in overlapping if modalities[a].dim == modalities[b].dim]
    near = {name: m.near for name, m in modalities.items()}
    pairs = {
        (a, b): measure_pair(sample, windows, near, _copy(scans, sample, a, b), a, b, seed=seed) for a, b in of_one_dim
    }
    one_dim = len({m.dim for m in modalities.values()}) == 1
    return Measurements(
        data=data,
        modalities=modalities,
        pairs=pairs,
        cka={
            (a, b): debiased_cka(sample.z[a][common[a, b]], sample.z[b][common[a, b]], seed=seed)
            for a, b in overlapping
            if (a, b) not in pairs
        },
        no_overlap=[pair for pair in common if pair not in overlapping],
        row_alignment=measure_row_alignment(sample, _comparable(modalities, pairs), seed=seed),
        conflict=_conflict(sample) if one_dim and pairs else {},
        details=measure_details(sample, modalities, pairs, seed=seed),
        neighbors=measure_batch_neighbors(sample, scans, near, items=data.items, batch_size=batch_size, seed=seed),
        label_map=_label_map(sample, list(pairs)),
        proposed_ids=propose_ids(
            data, {name: m for name, m in modalities.items() if stand_in_cosines(pairs, name) is None}
        ),
    )


def stand_in_cosines(pairs: Mapping[PairName, PairStats], name: str) -> tuple[float, float] | None:
    """Return the mean cosine of true pairs with the most frequent row, and of all others; None if the row matches its
    items. A frequent row that matches none of its items is probably the embedding of an empty or unreadable input.
    """
    for stats in pairs.values():
        if name in stats.frequent_row and not stats.is_copy and stats.auc >= limits.MIN_AUC:
            inside, outside = stats.frequent_row[name]
            if inside - stats.random_pair_cosine < limits.STAND_IN * (outside - stats.random_pair_cosine):
                return inside, outside
    return None


def _copy(scans: Mapping[str, ModalityScan], sample: ItemSample, a: str, b: str) -> CopyStats:
    rows = sample.common(a, b)
    kept = sample.kept_n[rows.numpy()]
    z, raw = (sample.z[a][rows], sample.z[b][rows]), (scans[a].kept_kD[kept], scans[b].kept_kD[kept])
    return compare_copies((a, b), z, raw, random_cosine=float((z[0].mean(0) * z[1].mean(0)).sum()))


def _comparable(modalities: Mapping[str, ModalityStats], pairs: Mapping[PairName, PairStats]) -> list[PairName]:
    """Return the pairs whose row order can be checked: distinct, uncollapsed modalities in the same space."""
    spread = {
        name
        for name, m in modalities.items()
        if m.spread_cosine is not None and m.spread_cosine.mean < limits.COLLAPSED
    }
    return [
        pair
        for pair, p in pairs.items()
        if p.directions
        and not p.is_copy
        and spread.issuperset(pair)
        # Exclude modalities of separate encoders, in which whole classes may be close by chance.
        and not (p.auc < limits.MIN_AUC and p.cka_p <= limits.MAX_CKA_P)
    ]


def _conflict(sample: ItemSample) -> dict[str, float]:
    """Return the mean conflict over anchors at temperature 0.07."""
    items = min(max(32, int(_MAX_CONFLICT_CELLS**0.5 / len(sample.z))), len(sample.rows_n))
    chosen = np.linspace(0, len(sample.rows_n) - 1, items).astype(np.int64)
    present = {name: usable_n[chosen] for name, usable_n in sample.usable.items()}
    if not all(bool(present_k.any()) for present_k in present.values()):
        return {}
    means = conflict_over_anchors({name: z_nD[chosen] for name, z_nD in sample.z.items()}, present=present).means()
    known = {key: means[key] for key in ("zeta", "zeta_neg", "chi") if math.isfinite(means[key])}
    return known | {"conflict_items": float(items)}


def _label_map(sample: ItemSample, pairs: list[PairName]) -> tuple[float, float] | None:
    """Return the mAP of same-label retrieval, and its chance level from shuffled labels."""
    labels_n, rng = sample.labels_n, np.random.default_rng(0)
    if labels_n is None:
        return None
    found: list[list[float]] = []
    for a, b in pairs:
        rows = sample.common(a, b).numpy()
        rows = rows[labels_n[rows] >= 0][:_MAX_LABELED]
        label_k = labels_n[rows]
        if len(np.unique(label_k)) >= 2:
            shuffled_k = rng.permutation(label_k)
            for q, g in ((a, b), (b, a)):
                x, y = sample.z[q][rows], sample.z[g][rows]
                found.append([retrieval(x, y, query_ids=label_k, gallery_ids=k).map for k in (label_k, shuffled_k)])
    mean: Any = np.mean(found, axis=0) if found else None
    return None if mean is None else (float(mean[0]), float(mean[1]))
