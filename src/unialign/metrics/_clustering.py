"""Spherical k-means and the V-measure.

Shapes: `N` items, `D` dimension, `K` clusters, `C` classes, `R` resamples, `n` items of a tile.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unialign._checks import check_integer, check_seed
from unialign.errors import ConfigError, ShapeError
from unialign.metrics._labels import codes
from unialign.ops import row_tiles, unit_rows


@dataclass(frozen=True, eq=False)
class Clustering:
    """Result of `kmeans`.

    Attributes:
        labels: (N,) int64 in [0, K).
        centers: (K, D) float64 unit rows.
        inertia: sum over items of the squared distance to the assigned center.
    """

    labels: Tensor
    centers: Tensor
    inertia: float


def kmeans(x: Any, clusters: int, *, seed: int, restarts: int = 10, iterations: int = 300) -> Clustering:
    """Compute spherical k-means (Dhillon & Modha 2001) with greedy k-means++ initialization and Lloyd's iterations.

    The best result of all restarts is returned. The result is deterministic for a seed, and the same on all devices up
    to rounding.

    Args:
        x: floating (N, D) tensor or array; rows and centers are L2-normalized here.
        clusters: K, from 1 to N. If there are fewer distinct rows, some clusters stay empty.
        seed: seed of the initializations.
        restarts: number of restarts, at least 1.
        iterations: maximum number of iterations per restart; a restart stops early if no label changes.

    Raises:
        ShapeError: the input is empty or not 2-D.
        NonFiniteError: a row contains NaN or infinity, or has norm zero.
        ConfigError: clusters outside [1, N], or restarts or iterations below 1.
    """
    check_integer("restarts", restarts, low=1)
    check_integer("iterations", iterations, low=1)
    check_seed(seed)
    x_ND = unit_rows(x, "x").detach()
    if not isinstance(clusters, int) or isinstance(clusters, bool) or not 1 <= clusters <= len(x_ND):
        raise ConfigError(f"clusters must be from 1 to {len(x_ND)}, the number of rows, got {clusters!r}")
    # Draw on the CPU, so that a seed gives the same draws on every device.
    generator = torch.Generator().manual_seed(seed)
    runs = (_lloyd(x_ND, _plus_plus(x_ND, clusters, generator), iterations) for _ in range(restarts))
    best = min(runs, key=lambda run: run.inertia)
    return Clustering(best.labels.cpu(), best.centers.cpu(), best.inertia)


def v_measure(labels: Any, clusters: Any) -> float:
    """Return the harmonic mean of homogeneity and completeness (Rosenberg & Hirschberg 2007), in [0, 1].

    The value is 1 if both partitions are equal. The V-measure equals the NMI with the arithmetic mean of the
    entropies.

    Args:
        labels, clusters: (N,) integers or strings.

    Raises:
        ShapeError: an input does not have shape (N,), N differs, or there are no items.
    """
    items = len(codes(labels, "labels"))
    if items == 0:
        raise ShapeError("clustering metrics need at least one item")
    return float(weighted_v_measure(labels, clusters, torch.ones(1, items, dtype=torch.float64)))


def weighted_v_measure(labels: Any, clusters: Any, weights_RN: Tensor) -> Tensor:
    """Return (R,) `v_measure` under each row of item weights; see `resample_weights`.

    V = 2 h c / (h + c) with h = I / H(labels), c = I / H(clusters), that is, 2 I / (H(labels) + H(clusters)); 1 if both
    entropies are 0, as in scikit-learn. The result is NaN if all weights are 0.
    """
    label_N, cluster_N = codes(labels, "labels"), codes(clusters, "clusters")
    if len(label_N) != len(cluster_N):
        raise ShapeError(
            f"got {len(label_N)} labels and {len(cluster_N)} clusters; expected a label and a cluster for each item"
        )
    if weights_RN.ndim != 2 or weights_RN.shape[1] != len(label_N):
        raise ShapeError(f"weights have shape {tuple(weights_RN.shape)}; expected (resamples, {len(label_N)})")
    weights_RN = weights_RN.double().cpu()
    # Use only the nonempty cells of the contingency table; there are at most N of them.
    cell_N = codes(label_N * (int(cluster_N.max()) + 1) + cluster_N, "cells")
    h_label, h_cluster, h_both = (_entropy(weights_RN, code_N) for code_N in (label_N, cluster_N, cell_N))
    mutual = (h_label + h_cluster - h_both).clamp(min=0)
    total = h_label + h_cluster
    # A single class and a single cluster agree perfectly but give 0 / 0; rounding of H may leave 1e-17.
    return torch.where(total < 1e-12, 1.0, 2 * mutual / total).clamp(max=1.0)


def _entropy(weights_RN: Tensor, code_N: Tensor) -> Tensor:
    mass_RX = weights_RN.new_zeros(len(weights_RN), int(code_N.max()) + 1).index_add_(1, code_N, weights_RN)
    p_RX = mass_RX / mass_RX.sum(1, keepdim=True)
    entropy_R: Tensor = -torch.special.xlogy(p_RX, p_RX).sum(1)
    return entropy_R


def _plus_plus(x_ND: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """Draw candidates with probability proportional to the squared distance to the nearest center; keep the best."""
    trials = 2 + int(math.log(clusters))
    first = int(torch.randint(len(x_ND), (1,), generator=generator))
    chosen = [first]
    nearest_N = _squared(x_ND, x_ND[first : first + 1])[:, 0]
    for _ in range(1, clusters):
        running_N = nearest_N.cumsum(0)
        draws = torch.rand(trials, generator=generator, dtype=torch.float64).to(x_ND.device) * running_N[-1]
        # If all rows coincide with centers, every draw is row 0 or the last row, which is a harmless duplicate.
        candidates = torch.searchsorted(running_N, draws).clamp(max=len(x_ND) - 1)
        reached = torch.minimum(nearest_N[:, None], _squared(x_ND, x_ND[candidates]))
        best = int(reached.sum(0).argmin())
        chosen.append(int(candidates[best]))
        nearest_N = reached[:, best]
    return x_ND[chosen]


def _lloyd(x_ND: Tensor, centers_KD: Tensor, iterations: int) -> Clustering:
    labels_N, distance_N = _assign(x_ND, centers_KD)
    for _ in range(iterations):
        centers_KD = _means(x_ND, labels_N, distance_N, centers_KD)
        previous_N = labels_N
        labels_N, distance_N = _assign(x_ND, centers_KD)
        if torch.equal(labels_N, previous_N):
            break
    return Clustering(labels_N, centers_KD, float(distance_N.sum()))


def _means(x_ND: Tensor, labels_N: Tensor, distance_N: Tensor, old_KD: Tensor) -> Tensor:
    clusters = len(old_KD)
    sums_KD, counts_K = torch.zeros_like(old_KD), torch.zeros_like(old_KD[:, 0])
    for tile in row_tiles(len(x_ND), clusters):
        # Multiply by the one-hot matrix, since atomic additions on an accelerator are nondeterministic.
        member_nK = torch.nn.functional.one_hot(labels_N[tile], clusters).to(x_ND)
        sums_KD += member_nK.mT @ x_ND[tile]
        counts_K += member_nK.sum(0)
    length_K = torch.linalg.vector_norm(sums_KD, dim=1)
    # Keep the old center if the rows of a cluster cancel.
    centers_KD = torch.where(length_K[:, None] > 1e-12, sums_KD / length_K[:, None], old_KD)
    empty = (counts_K == 0).nonzero().flatten()
    if len(empty):
        # Move an empty cluster to the row with the largest distance to its center.
        far = distance_N.topk(min(len(empty), len(x_ND))).indices
        centers_KD[empty[: len(far)]] = x_ND[far]
    return centers_KD


def _assign(x_ND: Tensor, centers_KD: Tensor) -> tuple[Tensor, Tensor]:
    parts = [_squared(x_ND[tile], centers_KD).min(1) for tile in row_tiles(len(x_ND), len(centers_KD))]
    return torch.cat([part.indices for part in parts]), torch.cat([part.values for part in parts])


def _squared(x_ND: Tensor, y_KD: Tensor) -> Tensor:
    squares = x_ND.square().sum(1, keepdim=True) + y_KD.square().sum(1)
    return (squares - 2 * (x_ND @ y_KD.mT)).clamp(min=0)
