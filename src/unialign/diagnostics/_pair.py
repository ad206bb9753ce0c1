"""Two modalities of one width: gap, true and random pairs, retrieval both ways, hubs.

Shapes: `n` items that both have, `D` width, `R` resamples, `C` classes of items that answer each other.
"""

import math
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign.diagnostics._cka import shared_structure
from unialign.diagnostics._row_alignment import Shift, Windows, shifts
from unialign.diagnostics._statistics import Sample, Value, estimate, mean_value
from unialign.diagnostics._thresholds import ALIKE, GAP_NOTE, LEAST_ANSWERS, UNPAIRED
from unialign.geometry import HubnessResult, hubness, modality_gap, modality_gap_debiased, true_pair_cosines
from unialign.metrics import RankCounts, RetrievalResult, retrieval

__all__ = ["Direction", "Pair", "answers", "measure_pair"]

CUTOFFS = (1, 10)


@dataclass(frozen=True)
class Direction:
    """Asking with one modality for the other.

    Attributes:
        recall: cut-off -> hit rate.
        mrr: mean reciprocal rank.
        beaten: share of the wrong candidates that rank behind the right one; 0.5 by chance, whatever n is.
        median_rank: of the right one.
        chance: the same metrics (recall@1, recall@10, mrr) of a random order.
        hubs: how unevenly the candidates turn up.
        hub_row: row number of the candidate that turns up most.
        scores: metric -> (n_sample,) per item, NaN for items not asked.
        queries: how many.
    """

    recall: dict[int, Value]
    mrr: Value
    beaten: Value
    median_rank: float
    chance: dict[str, float]
    hubs: HubnessResult
    hub_row: int
    scores: dict[str, Tensor]
    queries: int


@dataclass(frozen=True)
class Pair:
    """What two modalities are to each other.

    Attributes:
        items: n.
        gap: debiased distance of the means.
        raw_gap: the plain one.
        gap_share: part of the true pairs' mean squared distance that the gap makes up.
        true_cosine, random_cosine: mean cosine of row i with row i, and of row i with another row.
        identical: share of items whose two rows are equal number by number.
        directions: "a->b" -> retrieval; empty where too few different items are left to tell right from wrong.
        centred: "a->b" -> R@1 after each modality's mean was taken away, where there is a gap to speak of.
        structure, structure_p: see `shared_structure`, where true pairs are not told from others; NaN elsewhere.
        shifts: stretches where the rows of one are some rows behind the other's.
    """

    items: int
    gap: Value
    raw_gap: float
    gap_share: float
    true_cosine: Value
    random_cosine: float
    identical: float
    directions: dict[str, Direction] = field(default_factory=dict)
    centred: dict[str, Value] = field(default_factory=dict)
    structure: float = math.nan
    structure_p: float = math.nan
    shifts: tuple[Shift, ...] = ()

    @property
    def beaten(self) -> float:
        return float(np.mean([d.beaten.mean for d in self.directions.values()])) if self.directions else math.nan


def measure_pair(sample: Sample, windows: Windows, a: str, b: str, *, seed: int) -> Pair:
    """Measure modalities `a` and `b` on the items that have both, at least two."""
    rows = sample.both(a, b)
    x_nD, y_nD = sample.z[a][rows], sample.z[b][rows]
    weights_Rn = sample.weights_Rn[:, rows]
    cosine_n = true_pair_cosines(x_nD, y_nD)
    true = mean_value(_scattered(cosine_n, rows, sample), sample.weights_Rn)
    n = len(rows)
    other = (float(x_nD.sum(0) @ y_nD.sum(0)) - float(cosine_n.sum())) / (n * (n - 1))
    gap = estimate(
        float(modality_gap_debiased(x_nD, y_nD)), modality_gap_debiased(x_nD, y_nD, weights=weights_Rn), lowest=0.0
    )
    distance = 2 - 2 * true.mean
    identical = float((sample.hashes[a][rows.numpy()] == sample.hashes[b][rows.numpy()]).mean())
    found = Pair(
        items=n,
        gap=gap,
        raw_gap=float(modality_gap(x_nD, y_nD)),
        gap_share=min(1.0, gap.mean**2 / distance) if distance > 1e-9 else 0.0,
        true_cosine=true,
        random_cosine=other,
        identical=identical,
    )
    class_n = answers(sample.ids_n[rows.numpy()], *(sample.hashes[m][rows.numpy()] for m in (a, b)))
    share_C = np.bincount(class_n) / n
    if 1 / float((share_C**2).sum()) < LEAST_ANSWERS:
        return found
    sides = {f"{a}->{b}": (x_nD, y_nD), f"{b}->{a}": (y_nD, x_nD)}
    directions = {name: _direction(q, g, class_n, rows, sample) for name, (q, g) in sides.items()}
    centred: dict[str, Value] = {}
    if gap.mean >= GAP_NOTE:
        for name, (q, g) in sides.items():
            moved = _retrieve(_unit(q - q.mean(0)), _unit(g - g.mean(0)), class_n)
            scores_n = _scattered(moved.hits(1), rows[moved.rows], sample)
            centred[name] = mean_value(scores_n, sample.weights_Rn)
    structure = (math.nan, math.nan)
    if min(d.beaten.low for d in directions.values()) < UNPAIRED and identical < ALIKE:
        structure = shared_structure(x_nD, y_nD, seed=seed)
    return replace(
        found,
        directions=directions,
        centred=centred,
        structure=structure[0],
        structure_p=structure[1],
        shifts=shifts(windows, a, b, random_cosine=other),
    )


def answers(*codes: NDArray[np.generic]) -> NDArray[np.int64]:
    """(n,) classes of items that are right answers for each other: equal in any of the codes, directly or in a chain.

    A candidate that equals the right one number by number cannot be told from it, nor can two queries that are equal.
    """
    class_n = np.arange(len(codes[0]))
    groups = [np.unique(code_n, return_inverse=True)[1].reshape(-1) for code_n in codes]
    while True:
        before_n = class_n
        for group_n in groups:
            least_C = np.full(int(group_n.max()) + 1, len(class_n))
            np.minimum.at(least_C, group_n, class_n)
            class_n = least_C[group_n]
        if np.array_equal(class_n, before_n):
            return np.unique(class_n, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _retrieve(q_nD: Tensor, g_nD: Tensor, class_n: NDArray[np.int64]) -> RetrievalResult:
    # Without classes the fast path: row i answers query i.
    ids = None if len(np.unique(class_n)) == len(class_n) else class_n
    return retrieval(q_nD, g_nD, query_ids=ids, gallery_ids=ids, k=CUTOFFS)


def _direction(q_nD: Tensor, g_nD: Tensor, class_n: NDArray[np.int64], rows: Tensor, sample: Sample) -> Direction:
    result = _retrieve(q_nD, g_nD, class_n)
    n = len(q_nD)
    right_n = torch.from_numpy(np.bincount(class_n)[class_n])
    wrong_n = (n - right_n).double()
    # Before the best of p right answers lie (rank - 1) wrong ones, in expectation (n - p) / (p + 1) by chance.
    behind_n = 1 - (result.ranks - 1) / torch.where(wrong_n > 0, wrong_n, torch.nan)
    # The best of p places at random is Beta(p, 1), whose p-th power is uniform again: 0.5 stays chance.
    right = right_n.double()
    beaten_n = behind_n.clamp(min=0.0) ** right
    scores = {f"recall@{k}": _scattered(result.hits(k), rows[result.rows], sample) for k in CUTOFFS}
    scores |= {
        "mrr": _scattered(result.reciprocal_ranks, rows[result.rows], sample),
        "beaten": _scattered(beaten_n, rows[result.rows], sample),
    }
    values = {name: mean_value(scores_n, sample.weights_Rn) for name, scores_n in scores.items()}
    hubs = hubness(q_nD, g_nD, k=min(10, n))
    nothing = torch.zeros_like(right_n)
    chance = RankCounts(nothing, n - right_n, right_n, right_n, right, right, n)
    return Direction(
        recall={k: values[f"recall@{k}"] for k in CUTOFFS},
        mrr=values["mrr"],
        beaten=values["beaten"],
        median_rank=result.median_rank,
        chance={
            **{f"recall@{k}": float(chance.hits(k, "expected").mean()) for k in CUTOFFS},
            "mrr": float(chance.reciprocal_ranks("expected").mean()),
        },
        hubs=hubs,
        hub_row=int(sample.rows_n[int(rows[hubs.largest_row])]),
        scores=scores,
        queries=n,
    )


def _scattered(values: Tensor, rows: Tensor, sample: Sample) -> Tensor:
    scores_n = torch.full((len(sample.rows_n),), torch.nan, dtype=torch.float64)
    scores_n[rows] = values.double()
    return scores_n


def _unit(x_nD: Tensor) -> Tensor:
    norm_n1 = torch.linalg.vector_norm(x_nD, dim=1, keepdim=True)
    # A row that equals the mean has no direction left; any will do.
    return torch.where(norm_n1 > 1e-12, x_nD / norm_n1.clamp(min=1e-12), torch.ones_like(x_nD) / x_nD.shape[1] ** 0.5)
