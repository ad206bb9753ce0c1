"""Compute the modality gap, the spread and the conflict of a batch as statistics.

Shapes: `N` items, `K` pairs or anchors, `T` rows of a tile, `D` dimension.
"""

from itertools import combinations

import torch
from torch import Tensor

from unialign.batch import Batch
from unialign.evaluation._statistics import ConstantStatistic, DebiasedGap, ItemMean, Statistic
from unialign.geometry import conflict, effective_rank, modality_gap, true_pair_cosines
from unialign.ops import KernelFunction

__all__ = ["conflict_statistics", "geometry_statistics"]


def geometry_statistics(batch: Batch) -> dict[str, Statistic]:
    debiased, raw, cosines_KN = [], [], []
    for m, n in combinations(range(len(batch.names)), 2):
        rows = (batch.present_MB[m] & batch.present_MB[n]).nonzero().flatten()
        if len(rows) < 2:
            continue
        x, y = batch.z_MBD[m, rows], batch.z_MBD[n, rows]
        debiased.append((rows, x, y))
        raw.append(float(modality_gap(x, y)))
        cosines_N = torch.full((batch.present_MB.shape[1],), torch.nan, dtype=torch.float64)
        cosines_N[rows] = true_pair_cosines(x, y)
        cosines_KN.append(cosines_N)
    statistics: dict[str, Statistic] = {}
    if debiased:
        statistics["modality_gap_debiased"] = DebiasedGap(debiased)
        statistics["modality_gap"] = ConstantStatistic(sum(raw) / len(raw))
        statistics["true_pair_cosine"] = ItemMean(torch.stack(cosines_KN))
    columns = [batch.z_MBD[m, batch.present_MB[m]] for m in range(len(batch.names)) if batch.present_MB[m].sum() >= 2]
    if columns:
        statistics["uniformity"] = ConstantStatistic(sum(map(_wang_isola, columns)) / len(columns))
        ranks = [float(effective_rank(x_ND)) for x_ND in columns]
        statistics["effective_rank"] = ConstantStatistic(sum(ranks) / len(ranks))
    return statistics


def _wang_isola(x_ND: Tensor) -> float:
    """Return log mean_{i != j} exp(-2 |x_i - x_j|^2)."""
    x_ND = x_ND.double()
    total = -float(len(x_ND))  # subtract the N self pairs, each of value 1
    for tile_TD in torch.split(x_ND, 1024):
        total += float(KernelFunction("wang_isola").log(tile_TD @ x_ND.mT).exp().sum())
    pairs = len(x_ND) * (len(x_ND) - 1)
    return float(torch.log(torch.tensor(max(total, 0.0) / pairs, dtype=torch.float64)))


def conflict_statistics(batch: Batch, anchor: str | None) -> dict[str, Statistic]:
    embeddings = {name: batch.z_MBD[m] for m, name in enumerate(batch.names)}
    present = {name: batch.present_MB[m] for m, name in enumerate(batch.names)}
    anchors = batch.names if anchor is None else (batch.names[batch.index(anchor)],)
    results = [conflict(embeddings, anchor=name, present=present) for name in anchors]
    statistics: dict[str, Statistic] = {}
    for name in ("zeta", "zeta_neg", "chi"):
        scores_KN = torch.stack([getattr(result, name).double() for result in results])
        if not bool(torch.isnan(scores_KN).all()):
            statistics[name] = ItemMean(scores_KN)
    return statistics
