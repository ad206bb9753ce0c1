"""Compute statistics of two modalities of equal dim: gap, true and random pairs, retrieval in both directions, hubs.

Shapes: `n` items with both modalities (`n_sample` of the sample), `D` dim, `R` resamples, `C` classes of positives.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign.diagnostics import _limits as limits
from unialign.diagnostics._cka import debiased_cka
from unialign.diagnostics._copies import CopyStats
from unialign.diagnostics._estimate import Estimate, estimate, estimate_mean, estimate_rate
from unialign.diagnostics._match import MatchStats, calibrate_match
from unialign.diagnostics._near_rows import NearRows, connected
from unialign.diagnostics._row_offsets import RowOffset, find_row_offsets
from unialign.diagnostics._sampling import ItemSample, RowWindows
from unialign.diagnostics._unit import unit
from unialign.geometry import HubnessResult, hubness, modality_gap, modality_gap_debiased, true_pair_cosines
from unialign.metrics import RankCounts, RetrievalResult, retrieval

_K = (1, 10)


@dataclass(frozen=True)
class DirectionStats:
    recall: dict[int, Estimate]  # recall at each k
    mrr: Estimate  # mean reciprocal rank
    # Fraction of the negatives ranked below the positive (area under the ROC curve, averaged over queries); 0.5 by
    # chance, for any n and any number of positives.
    auc: Estimate
    median_rank: float  # median rank of the first positive
    chance: dict[str, float]  # recall@1, recall@10 and mrr of a random ranking
    # If over half of the rows of a modality are copies, each distinct row is counted once as query and as candidate.
    hubs: HubnessResult
    hub_row: int  # row number of the most frequently retrieved candidate
    queries: int  # number of queries, which is also the number of candidates

    @property
    def distinct(self) -> int:
        """Number of distinct queries or of distinct candidates, whichever is smaller."""
        return min(self.hubs.queries, len(self.hubs.counts))


@dataclass(frozen=True)
class PairStats:
    items: int  # items with both modalities
    gap: Estimate  # debiased distance between the means
    gap_z: float  # z-value of the squared distance under the hypothesis of no gap, by classes of positives
    modality_gap: float  # distance between the means
    gap_fraction: float  # fraction of the mean squared distance of true pairs that is due to the gap
    true_pair_cosine: Estimate  # mean cosine of row i of one modality with row i of the other
    random_pair_cosine: float  # mean cosine of row i with another row
    identical: float  # fraction of items whose two rows are bitwise equal
    copy: CopyStats  # whether one modality is a copy of the other
    # Modality -> mean cosine of the true pairs of its most frequent row, and of all other true pairs; only for
    # modalities with a frequent row.
    frequent_row: dict[str, tuple[float, float]]
    distinct_items: float  # effective number of classes of positives: 1 / sum of squared fractions
    # "a->b" -> retrieval; empty if too few distinct items remain to distinguish positives from negatives.
    directions: dict[str, DirectionStats] = field(default_factory=dict)
    # "a->b" -> R@1 after subtracting each modality's mean, if there is a gap.
    centered_recall: dict[str, Estimate] = field(default_factory=dict)
    cka: float = math.nan  # see `debiased_cka`; measured if true pairs are hardly more similar than random pairs
    cka_p: float = math.nan
    offsets: tuple[RowOffset, ...] = ()  # ranges of rows that are shifted between the modalities
    match: MatchStats | None = None  # cosine thresholds for likely matches; None for few or unpaired items

    @property
    def is_copy(self) -> bool:
        """Whether one modality is a copy of the other, so that their agreement is meaningless."""
        return self.copy.kind != "" or self.identical >= limits.DUPLICATE_MODALITY

    @property
    def auc(self) -> float:
        """Mean AUC over both directions; NaN if retrieval was not measured."""
        return float(np.mean([d.auc.mean for d in self.directions.values()])) if self.directions else math.nan


def positive_classes(sample: ItemSample, near: Mapping[str, NearRows], a: str, b: str) -> NDArray[np.int64]:
    """Return class codes; items of one class are positives of each other."""
    rows_n = sample.common(a, b).numpy()
    codes = [sample.checksums[m][rows_n] for m in (a, b)]
    class_n = connected(sample.ids_n[rows_n], *codes, *(near[m].code_n[rows_n] for m in (a, b) if near[m].are_answers))
    return np.unique(class_n, return_inverse=True)[1].reshape(-1).astype(np.int64)


def measure_pair(
    sample: ItemSample, windows: RowWindows, near: Mapping[str, NearRows], copy: CopyStats, a: str, b: str, *, seed: int
) -> PairStats:
    rows = sample.common(a, b)
    n, x_nD, y_nD = len(rows), sample.z[a][rows], sample.z[b][rows]
    checksums = [sample.checksums[m][rows.numpy()] for m in (a, b)]
    cosine_n = true_pair_cosines(x_nD, y_nD)
    true = _estimate_at(rows, cosine_n, sample)
    gap = _gap(x_nD, y_nD, sample.weights_Rn[:, rows])
    distance = 2 - 2 * true.mean
    code = {m: near[m].code_n[rows.numpy()] for m in (a, b)}
    class_n = positive_classes(sample, near, a, b)
    count_C = np.bincount(class_n)
    pair = PairStats(
        items=n,
        gap=gap,
        gap_z=_gap_z(x_nD - y_nD, class_n),
        modality_gap=float(modality_gap(x_nD, y_nD)),
        gap_fraction=min(1.0, gap.mean**2 / distance) if distance > 1e-9 else 0.0,
        true_pair_cosine=true,
        random_pair_cosine=(float(x_nD.sum(0) @ y_nD.sum(0)) - float(cosine_n.sum())) / (n * (n - 1)),
        identical=float((checksums[0] == checksums[1]).mean()),
        copy=copy,
        frequent_row={
            m: found for m, sums in zip((a, b), checksums, strict=True) if (found := _frequent_row(cosine_n, sums))
        },
        distinct_items=float(n**2 / (count_C**2).sum()),
    )
    if pair.distinct_items < limits.MIN_DISTINCT_ITEMS:
        return pair
    code |= {m: np.arange(n) for m in (a, b) if not near[m].has_few_distinct}
    sides = {f"{a}->{b}": (x_nD, y_nD), f"{b}->{a}": (y_nD, x_nD)}
    directions = {
        name: _direction(*sides[name], class_n, rows, sample, distinct=(code[q], code[g]))
        for name, q, g in ((f"{a}->{b}", a, b), (f"{b}->{a}", b, a))
    }
    paired = float(np.mean([d.auc.mean for d in directions.values()])) >= limits.MIN_AUC
    centered = sides if gap.mean >= limits.GAP_NOTE else {}
    unclear = min(d.auc.low for d in directions.values()) < limits.MIN_AUC
    unclear = unclear and not pair.is_copy
    cka, cka_p = debiased_cka(x_nD, y_nD, seed=seed) if unclear else (math.nan, math.nan)
    return replace(
        pair,
        directions=directions,
        centered_recall={name: _centered_recall(q, g, class_n, rows, sample) for name, (q, g) in centered.items()},
        cka=cka,
        cka_p=cka_p,
        offsets=find_row_offsets(windows, a, b, random_cosine=pair.random_pair_cosine),
        match=calibrate_match(x_nD, y_nD, class_n, seed=seed) if paired and not pair.is_copy else None,
    )


def _frequent_row(cosine_n: Tensor, checksums_n: NDArray[np.uint64]) -> tuple[float, float] | None:
    """Return the mean cosine of true pairs with the most frequent row, and of all others; None if no row is
    frequent.
    """
    _, row_n, count_C = np.unique(checksums_n, return_inverse=True, return_counts=True)
    if not limits.FREQUENT_ROW <= count_C.max() < len(row_n):
        return None
    inside_n = torch.from_numpy(row_n.reshape(-1) == count_C.argmax())
    return float(cosine_n[inside_n].mean()), float(cosine_n[~inside_n].mean())


def _gap(x_nD: Tensor, y_nD: Tensor, weights_Rn: Tensor) -> Estimate:
    resampled_R = modality_gap_debiased(x_nD, y_nD, weights=weights_Rn)
    return estimate(float(modality_gap_debiased(x_nD, y_nD)), resampled_R, minimum=0.0, maximum=2.0)


def _gap_z(difference_nD: Tensor, class_n: NDArray[np.int64]) -> float:
    """Return the z-value of the squared distance between the means. Without a gap, the mean sum_c w_c m_c of
    independent class means m_c with covariance S has the expected squared length tr(S) sum w_c^2, with the standard
    deviation sqrt(2 tr(S^2)) sum w_c^2. A few captions shared by many items therefore count as few observations.
    """
    code_n = torch.from_numpy(class_n)
    count_C = torch.bincount(code_n).double()
    if len(count_C) < 3:
        return 0.0
    mean_CD = torch.zeros(len(count_C), difference_nD.shape[1], dtype=torch.float64)
    mean_CD.index_add_(0, code_n, difference_nD)
    mean_CD /= count_C[:, None]
    squared = float(difference_nD.mean(0).square().sum())
    centered_CD = mean_CD - mean_CD.mean(0)
    wide = centered_CD.shape[1] > len(centered_CD)
    gram = centered_CD @ centered_CD.mT if wide else centered_CD.mT @ centered_CD
    variance = gram / (len(count_C) - 1)
    weight = float((count_C / len(class_n)).square().sum())
    spread = math.sqrt(2 * float(variance.square().sum())) * weight
    return (squared - float(variance.trace()) * weight) / max(spread, 1e-300)


def _centered_recall(
    q_nD: Tensor, g_nD: Tensor, class_n: NDArray[np.int64], rows: Tensor, sample: ItemSample
) -> Estimate:
    result = _retrieve(unit(q_nD - q_nD.mean(0)), unit(g_nD - g_nD.mean(0)), class_n)
    return _estimate_at(rows[result.rows], result.hits(1), sample, rate=True)


def _direction(
    q_nD: Tensor,
    g_nD: Tensor,
    class_n: NDArray[np.int64],
    rows: Tensor,
    sample: ItemSample,
    *,
    distinct: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> DirectionStats:
    """Measure one direction. `distinct` holds the groups of nearly equal queries and of nearly equal candidates."""
    result, n = _retrieve(q_nD, g_nD, class_n), len(q_nD)
    positives_n = torch.from_numpy(np.bincount(class_n)[class_n])
    p_n, negatives_n = positives_n.double(), (n - positives_n).double()
    below_n = 1 - (result.ranks - 1) / torch.where(negatives_n > 0, negatives_n, torch.nan)
    # The maximum of p random percentiles has a Beta(p, 1) distribution, so its p-th power is uniform with mean 0.5.
    scores = {f"recall@{k}": result.hits(k) for k in _K}
    scores |= {"mrr": result.reciprocal_ranks, "auc": below_n.clamp(min=0.0) ** p_n}
    values = {name: _estimate_at(rows[result.rows], scores_n, sample, rate=True) for name, scores_n in scores.items()}
    query_k, candidate_k = (np.sort(np.unique(code_n, return_index=True)[1]) for code_n in distinct)
    hubs = hubness(q_nD[query_k], g_nD[candidate_k], k=min(10, len(candidate_k)))
    random = RankCounts(torch.zeros_like(positives_n), n - positives_n, positives_n, positives_n, p_n, p_n, n)
    return DirectionStats(
        recall={k: values[f"recall@{k}"] for k in _K},
        mrr=values["mrr"],
        auc=values["auc"],
        median_rank=result.median_rank,
        chance={
            **{f"recall@{k}": float(random.hits(k, "expected").mean()) for k in _K},
            "mrr": float(random.reciprocal_ranks("expected").mean()),
        },
        hubs=hubs,
        hub_row=int(sample.rows_n[int(rows[candidate_k[hubs.largest_row]])]),
        queries=n,
    )


def _retrieve(q_nD: Tensor, g_nD: Tensor, class_n: NDArray[np.int64]) -> RetrievalResult:
    # If row i is the only positive of query i, `retrieval` is faster without ids.
    ids = None if len(np.unique(class_n)) == len(class_n) else class_n
    return retrieval(q_nD, g_nD, query_ids=ids, gallery_ids=ids, k=_K)


def _estimate_at(rows: Tensor, values: Tensor, sample: ItemSample, *, rate: bool = False) -> Estimate:
    """Estimate a mean of scores at the given rows; the scores of a rate are in [0, 1]."""
    scores_n = torch.full((len(sample.rows_n),), torch.nan, dtype=torch.float64)
    scores_n[rows] = values.double()
    if rate:
        return estimate_rate(scores_n, sample.weights_Rn, units=len(np.unique(sample.ids_n[rows.numpy()])))
    return estimate_mean(scores_n, sample.weights_Rn)
