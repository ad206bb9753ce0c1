"""Measures of the study `front`: hypervolumes, scores of settings, and the geometry that goes with joint retrieval.

Shapes: `N` items, `D` dimension, `P` points, `F` metrics, `R` resamples, `S` seeds or splits.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign.geometry import conflict, effective_rank, hubness
from unialign.metrics import add_seed_variance, percentile_interval

__all__ = [
    "MECHANISM",
    "METRICS",
    "difference",
    "hypervolume",
    "log_score",
    "measure_mechanism",
    "non_dominated",
    "scaled_points",
    "with_interval",
]

METRICS = ("recall@1", "joint_recall@1", "label_map")
MECHANISM: Mapping[str, str] = {
    "mechanism/cosine_over_spread": "pair cosine over spread of cross negatives",
    "mechanism/pair_cosine": "pair cosine",
    "mechanism/spread": "spread of cross negatives",
    "mechanism/effective_rank": "effective rank",
    "mechanism/hubness": "hubness",
    "mechanism/zeta_neg": "conflict of the negatives (zeta_neg)",
    "mechanism/chi": "conflict chi",
}


def log_score(metrics: Mapping[str, float]) -> float:
    """Mean logarithm of the defined metrics; NaN if training failed."""
    known = [metrics[name] for name in METRICS if math.isfinite(metrics.get(name, math.nan))]
    return fmean(math.log(max(value, 1e-4)) for value in known) if known else math.nan


# --- fronts ---------------------------------------------------------------------------------------------------------


def non_dominated(points_PF: Sequence[Sequence[float]]) -> list[int]:
    """Return the places of the points that no other point dominates, with higher values better; of equal points all."""

    def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
        return all(x >= y for x, y in zip(a, b, strict=True)) and any(x > y for x, y in zip(a, b, strict=True))

    return [i for i, own in enumerate(points_PF) if not any(dominates(other, own) for other in points_PF)]


def hypervolume(points_PF: Sequence[Sequence[float]]) -> float:
    """Return the volume in the unit cube that is dominated by the points, which are clipped to the cube.

    Slices along the last metric, as in the HSO algorithm (While et al. 2006).
    """
    clipped = [[min(max(float(x), 0.0), 1.0) for x in point] for point in points_PF]
    return _volume([point for point in clipped if all(not math.isnan(x) for x in point)])


def _volume(points: list[list[float]]) -> float:
    if not points:
        return 0.0
    if len(points[0]) == 1:
        return max(point[0] for point in points)
    ordered = sorted(points, key=lambda point: -point[-1])
    lower = [point[-1] for point in ordered[1:]] + [0.0]
    return sum(
        (point[-1] - below) * _volume([other[:-1] for other in ordered[: i + 1]])
        for i, (point, below) in enumerate(zip(ordered, lower, strict=True))
        if point[-1] > below
    )


def scaled_points(
    values_PF: NDArray[np.float64], low_F: NDArray[np.float64], high_F: NDArray[np.float64]
) -> list[list[float]]:
    """Map the box between `low_F` and `high_F` to the unit cube."""
    scaled: list[list[float]] = ((values_PF - low_F) / np.maximum(high_F - low_F, 1e-9)).tolist()
    return scaled


# --- intervals ------------------------------------------------------------------------------------------------------


def with_interval(values_SR: Tensor, points_S: Sequence[float]) -> dict[str, float]:
    """Return mean, 95 % interval over items and seeds, and the p-value of a normal test against 0.

    The p-value uses the standard error of the bootstrap, since percentiles of a few thousand resamples cannot be below
    the level of a Holm correction over hundreds of tests.
    """
    points = torch.tensor(points_S, dtype=torch.float64)
    values_R = add_seed_variance(values_SR.double(), points)
    low, high = percentile_interval(values_R, 0.95)
    mean, error = float(points.mean()), float(values_R[~values_R.isnan()].std())
    p = math.erfc(abs(mean) / (math.sqrt(2) * error)) if error > 0 else float(mean == 0)
    return {"mean": mean, "low": min(low, mean), "high": max(high, mean), "p": p}


def difference(first: tuple[Tensor, Sequence[float]], baseline: tuple[Tensor, Sequence[float]]) -> dict[str, float]:
    """Compare paired (S, R) resampled values and S points; a baseline of one seed is compared with every seed."""
    (a_SR, a_S), (b_SR, b_S) = first, baseline
    if len(b_S) == 1:
        b_SR, b_S = b_SR.expand(len(a_S), -1), [b_S[0]] * len(a_S)
    return with_interval(a_SR - b_SR, [x - y for x, y in zip(a_S, b_S, strict=True)])


# --- geometry -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def measure_mechanism(
    embeddings: Mapping[str, Tensor], present: Mapping[str, Tensor], *, anchor: str, temperature: float = 0.07
) -> dict[str, float]:
    """Return means over pairs or modalities of the quantities in `MECHANISM`."""
    cosines, spreads, hubs = [], [], []
    for m, n in itertools.combinations(embeddings, 2):
        both_N = present[m] & present[n]
        if int(both_N.sum()) < 3:
            continue
        x_ND, y_ND = embeddings[m][both_N].double(), embeddings[n][both_N].double()
        s_NN = x_ND @ y_ND.T
        negatives = s_NN[~torch.eye(len(s_NN), dtype=torch.bool)]
        cosines.append(float(s_NN.diagonal().mean()))
        spreads.append(float(negatives.std()))
        k = min(10, len(s_NN) - 1)
        hubs.append(fmean(hubness(a, b, k=k).skewness for a, b in ((x_ND, y_ND), (y_ND, x_ND))))
    rank = fmean(float(effective_rank(z_ND[present[name]])) for name, z_ND in embeddings.items())
    means = conflict(dict(embeddings), anchor=anchor, temperature=temperature, present=dict(present)).means()
    return {
        "mechanism/cosine_over_spread": fmean(c / s for c, s in zip(cosines, spreads, strict=True)),
        "mechanism/pair_cosine": fmean(cosines),
        "mechanism/spread": fmean(spreads),
        "mechanism/effective_rank": rank,
        "mechanism/hubness": fmean(hubs),
        "mechanism/zeta_neg": float(means["zeta_neg"]),
        "mechanism/chi": float(means["chi"]),
    }
