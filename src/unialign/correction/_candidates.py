"""Measure candidate repairs on held-out items, and choose among them.

Shapes: `n` held-out items, `D` dimension, `R` bootstrap resamples, `M` modalities.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from unialign._pair_keys import pair_name
from unialign.correction._csls import MOST_REFERENCES, csls, local_similarity
from unialign.correction._layers import Affine, Method, fit_layers
from unialign.correction._rows import ItemRows
from unialign.geometry import modality_gap_debiased
from unialign.metrics import (
    MixedPoolResult,
    PoolScores,
    mixed_pool,
    noisy_copies,
    percentile_interval,
    resample_weights,
)

Score = Callable[[str, Tensor, str, Tensor], Tensor]

# Cosine of a row and its noisy copy, and number of draws of the pool.
SIMILARITY, DRAWS = 0.7, 3
_RESAMPLES = 500
# A candidate is not chosen if its label precision is significantly lower, and lower by more than this difference.
_MOST_LABEL_LOSS = 0.01
_METRICS = ("balanced", "own", "cross", "share", "label_precision")


@dataclass(frozen=True)
class Candidate:
    """Mixed-pool results of a method on the held-out items, one for each draw of the pool."""

    method: Method
    results: tuple[MixedPoolResult, ...]
    gaps: dict[str, float]

    def resample(self, name: str, pair: str | None, weights_Rn: Tensor) -> Tensor:
        scores = [self._scores(result, pair).resample(weights_Rn)[name] for result in self.results]
        return torch.stack(scores).mean(0)

    def estimate(self, name: str, pair: str | None, weights_Rn: Tensor) -> dict[str, float] | None:
        return _estimate(self.resample(name, pair, weights_Rn), self.mean(name, pair, weights_Rn.shape[1]))

    def mean(self, name: str, pair: str | None, items: int) -> float:
        return float(self.resample(name, pair, torch.ones(1, items, dtype=torch.float64)))

    @staticmethod
    def _scores(result: MixedPoolResult, pair: str | None) -> PoolScores:
        return result.overall if pair is None else result.pairs[pair]


def references(rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
    centered = {name: _unit(z_nD - z_nD.mean(0)) for name, z_nD in rows.items()}
    return {name: z_nD[:: -(-len(z_nD) // MOST_REFERENCES)] for name, z_nD in centered.items()}


def csls_score(reference: Mapping[str, Tensor]) -> Score:
    def score(query: str, queries_QD: Tensor, gallery: str, rows_GD: Tensor) -> Tensor:
        same = query == gallery
        query_local_Q = local_similarity(queries_QD, reference[gallery], same_modality=same)
        row_local_G = local_similarity(rows_GD, reference[query], same_modality=same)
        return csls(queries_QD, rows_GD, query_local_Q, row_local_G)

    return score


def measure_candidates(
    methods: Sequence[Method], fit: Mapping[str, Tensor], held: ItemRows, *, seed: int, pairs: bool = False
) -> dict[Method, Candidate]:
    names = list(held.z)
    z_MnD, present_Mn = torch.stack([held.z[name] for name in names]), torch.stack([held.present[n] for n in names])
    seeds = range(seed, seed + DRAWS)
    copies = [dict(zip(names, noisy_copies(z_MnD, present_Mn, SIMILARITY, draw), strict=True)) for draw in seeds]
    found: dict[Method, Candidate] = {}
    for method in methods:
        layers = fit_layers(method, fit)
        score = csls_score(references(fit)) if method == "center_csls" else None
        z = apply_layers(layers, held.z)
        results = tuple(
            mixed_pool(
                z,
                present=held.present,
                ids=held.ids_n,
                labels=held.labels_n,
                copies=apply_layers(layers, views),
                seeds=(draw,),
                score=score,
                pairs=pairs,
            )
            for draw, views in zip(seeds, copies, strict=True)
        )
        found[method] = Candidate(method, results, _gaps(z, held.present))
    return found


def choose(
    candidates: Mapping[Method, Candidate], allowed: Sequence[Method], weights_Rn: Tensor
) -> tuple[Method, dict[Method, str]]:
    """Choose the highest balanced score among the methods with a significant gain over `none` (one-sided paired
    bootstrap test at 5 %).
    """
    items, reasons = weights_Rn.shape[1], dict[Method, str]()
    before = candidates.get("none")
    best, best_gain = allowed[0], -torch.inf if before is None else 0.0
    for method in allowed:
        if before is None:
            gain = candidates[method].mean("balanced", None, items)
        elif method == "none":
            continue
        else:
            gain, reason = _gain(candidates[method], before, weights_Rn)
            if reason:
                reasons[method] = reason
                continue
        if gain > best_gain:
            best, best_gain = method, gain
    for method in allowed:
        if method not in (best, "none"):
            reasons.setdefault(method, "its balanced score is not the highest")
    return best, reasons


def _gain(candidate: Candidate, before: Candidate, weights_Rn: Tensor) -> tuple[float, str]:
    """Return the gain of the balanced score, and the reason why the candidate is rejected or ""."""
    items = weights_Rn.shape[1]
    if bool((weights_Rn == weights_Rn[0]).all()):
        return 0.0, "all held-out items are of one group, so no gain is significant"
    gain_R = candidate.resample("balanced", None, weights_Rn) - before.resample("balanced", None, weights_Rn)
    gain = candidate.mean("balanced", None, items) - before.mean("balanced", None, items)
    if float(torch.nanquantile(gain_R, 0.05)) <= 0:
        return gain, "its balanced score is not significantly higher than without repair"
    loss_R = before.resample("label_precision", None, weights_Rn) - candidate.resample(
        "label_precision", None, weights_Rn
    )
    loss = before.mean("label_precision", None, items) - candidate.mean("label_precision", None, items)
    if loss > _MOST_LABEL_LOSS and float(torch.nanquantile(loss_R, 0.05)) > 0:
        return gain, f"its label precision is {100 * loss:.1f} points lower than without repair"
    return gain, ""


def bootstrap_weights(held: ItemRows, seed: int) -> Tensor:
    """Return bootstrap weights; items of the same group are resampled together."""
    return resample_weights(held.ids_n if held.groups_n is None else held.groups_n, resamples=_RESAMPLES, seed=seed)


def describe(candidate: Candidate, pair: str | None, weights_Rn: Tensor) -> dict[str, Any]:
    values: dict[str, Any] = {name: candidate.estimate(name, pair, weights_Rn) for name in _METRICS}
    if pair is not None:
        values["gap"] = candidate.gaps[pair]
    return values


def apply_layers(layers: Mapping[str, Affine], rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: _unit(layers[name](z_nD)) for name, z_nD in rows.items()}


def _unit(z_nD: Tensor) -> Tensor:
    return torch.nn.functional.normalize(z_nD, dim=1, eps=1e-300)


def _gaps(z: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> dict[str, float]:
    found: dict[str, float] = {}
    for a, b in combinations(z, 2):
        both_n = present[a] & present[b]
        if int(both_n.sum()) >= 2:
            found[pair_name(a, b)] = float(modality_gap_debiased(z[a][both_n], z[b][both_n]))
    return found


def _estimate(values_R: Tensor, mean: float) -> dict[str, float] | None:
    if not bool((~torch.isnan(values_R)).any()) or mean != mean:
        return None
    interval = percentile_interval(values_R, estimate=mean)
    return {"mean": mean, "low": interval.low, "high": interval.high}
