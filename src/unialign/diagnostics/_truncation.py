"""Measure the loss from fewer dims: R@1 and NDCG@10 of the first coordinates and of the principal directions.

Shapes: `n` sampled items, `k` measured items, `p` rows of the fit, `D` dim, `d` kept dims, `R` resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign.diagnostics._estimate import Estimate, average, difference, estimate
from unialign.diagnostics._unit import unit
from unialign.metrics import retrieval
from unialign.ops import TIE_TOLERANCE

_FRACTIONS = (2, 4, 8)
# Maximum number of rows and of dims of the matrix whose principal directions are computed.
_MAX_FIT = 1024
_METRICS = ("recall@1", "ndcg@10")


@dataclass(frozen=True)
class Truncation:
    dim: int
    kind: str  # "first" for the first coordinates, "principal" for the principal directions of all modalities
    recall: Estimate  # R@1
    ndcg: Estimate  # NDCG@10
    recall_loss: Estimate  # R@1 of all dims minus that of `dim` dims; the resamples are paired
    ndcg_loss: Estimate


@dataclass(frozen=True)
class TruncationStats:
    items: int  # largest number of candidates in a direction
    recall: Estimate  # R@1 of all dims
    ndcg: Estimate
    reduced: tuple[Truncation, ...]


def principal_directions(rows: Sequence[Tensor]) -> Tensor | None:
    """Return orthonormal columns (D, r), ordered by the second moment. The rows are not centered, so that all
    directions together preserve the cosines. Directions beyond half the number of rows are mostly noise and are left
    out.
    """
    rows_pD = torch.cat(list(rows)) if rows else torch.zeros(0, 1, dtype=torch.float64)
    if len(rows_pD) < 2:
        return None
    if rows_pD.shape[1] > _MAX_FIT and len(rows_pD) > _MAX_FIT:
        rows_pD = rows_pD[np.linspace(0, len(rows_pD) - 1, _MAX_FIT).astype(np.int64)]
    wide = rows_pD.shape[1] > len(rows_pD)
    gram = rows_pD @ rows_pD.mT if wide else rows_pD.mT @ rows_pD
    axes = torch.linalg.eigh(gram).eigenvectors.flip(1)[:, : max(1, len(rows_pD) // 2)]
    return torch.nn.functional.normalize(rows_pD.mT @ axes, dim=0) if wide else axes


Direction = dict[tuple[str, int], dict[str, Estimate]]


def measure_truncation(
    x_kD: Tensor, y_kD: Tensor, class_k: NDArray[np.int64], weights_Rk: Tensor, axes_Dr: Tensor | None
) -> list[Direction]:
    """Measure one direction. The keys are the kind and the number of dims, ("all", D) for all dims."""
    dim = x_kD.shape[1]
    kept = [d for fraction in _FRACTIONS if (d := dim // fraction) >= 1]
    versions: dict[tuple[str, int], tuple[Tensor, Tensor]] = {("all", dim): (x_kD, y_kD)}
    versions |= {("first", d): (x_kD[:, :d], y_kD[:, :d]) for d in kept}
    if axes_Dr is not None:
        x_kr, y_kr = x_kD @ axes_Dr, y_kD @ axes_Dr
        versions |= {("principal", d): (x_kr[:, :d], y_kr[:, :d]) for d in kept if d <= axes_Dr.shape[1]}
    versions = {key: (unit(x), unit(y)) for key, (x, y) in versions.items()}
    ids = None if len(np.unique(class_k)) == len(class_k) else class_k
    total_R1 = weights_Rk.sum(1, keepdim=True)
    forward = {key: _scores(x, y, ids, weights_Rk, total_R1) for key, (x, y) in versions.items()}
    backward = {key: _scores(y, x, ids, weights_Rk, total_R1) for key, (x, y) in versions.items()}
    return [forward, backward]


def _scores(
    q_kD: Tensor, g_kD: Tensor, ids: NDArray[np.int64] | None, weights_Rk: Tensor, total_R1: Tensor
) -> dict[str, Estimate]:
    if ids is None:
        scores_k2 = _one_positive(q_kD @ g_kD.mT)
    else:
        result = retrieval(q_kD, g_kD, query_ids=ids, gallery_ids=ids, k=(1, 10))
        scores_k2 = torch.stack([result.scores(name) for name in _METRICS], 1)
    values_R2 = (weights_Rk @ scores_k2) / total_R1
    means = scores_k2.mean(0).tolist()
    return {
        name: estimate(mean, values_R, minimum=0.0, maximum=1.0)
        for name, mean, values_R in zip(_METRICS, means, values_R2.T, strict=True)
    }


def _one_positive(cosine_kk: Tensor) -> Tensor:
    """Return R@1 and NDCG@10 per query, with ties in random order as in `retrieval`, but several times faster."""
    positive_k1 = cosine_kk.diagonal()[:, None]
    above_k = (cosine_kk > positive_k1 + TIE_TOLERANCE).sum(1)
    places_k = (cosine_kk >= positive_k1 - TIE_TOLERANCE).sum(1) - above_k
    gain_p = torch.nn.functional.pad(1 / torch.log2(torch.arange(2, 12, dtype=torch.float64)), (1, 0)).cumsum(0)
    first_k, last_k = above_k.clamp(max=10), (above_k + places_k).clamp(max=10)
    return torch.stack([(above_k == 0).double(), gain_p[last_k] - gain_p[first_k]], 1) / places_k[:, None]


def average_truncation(directions: Sequence[Direction], *, items: int) -> TruncationStats | None:
    """Average over directions; a reduced number of dims is included if it was measured in every direction."""
    if not directions:
        return None
    ((whole, dim),) = (key for key in directions[0] if key[0] == "all")
    common = [key for key in directions[0] if key[0] != "all" and all(key in found for found in directions)]

    def mean(key: tuple[str, int], name: str) -> Estimate:
        found = average([direction[key][name] for direction in directions])
        assert found is not None  # every direction has at least one query
        return found

    recall, ndcg = (mean((whole, dim), name) for name in _METRICS)
    reduced = []
    for kind, d in common:
        values = [mean((kind, d), name) for name in _METRICS]
        losses = [difference(full, value) for full, value in zip((recall, ndcg), values, strict=True)]
        reduced.append(Truncation(d, kind, *values, *losses))
    return TruncationStats(items, recall, ndcg, tuple(reduced))
