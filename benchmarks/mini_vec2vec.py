"""Align two embedding spaces without pairs, after mini-vec2vec (Dar, arXiv 2510.02348), for `benchmarks.bridge`.

This is an independent, shortened implementation without the clustering-based refinement of the paper, so results of the
original implementation may be better.

Shapes: `N` old rows, `M` new rows, `D` and `E` dimensions, `K` clusters.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import quadratic_assignment

from unialign.metrics import kmeans

Array = NDArray[Any]


def fit_unsupervised(
    old_ND: Array, new_ME: Array, *, clusters: int = 20, runs: int = 4, iterations: int = 15, seed: int = 0
) -> tuple[Array, Array, Array]:
    """Return the means of both spaces and the (D, E) rotation; no row is paired."""
    mean_D, mean_E = old_ND.mean(0), new_ME.mean(0)
    x_ND, y_ME = _unit(old_ND - mean_D), _unit(new_ME - mean_E)
    x_parts, y_parts = [], []
    for run in range(runs):
        a, b = _assigned_centers(x_ND, y_ME, clusters, seed + run)
        x_parts.append(x_ND @ a.T)
        y_parts.append(y_ME @ b.T)
    rotation_DE = _rotation(x_ND, y_ME, _standardized(x_parts), _standardized(y_parts))
    for _ in range(iterations):
        rotation_DE = _rotation(x_ND, y_ME, _unit(x_ND @ rotation_DE), y_ME)
    return mean_D, mean_E, rotation_DE


def _assigned_centers(x_ND: Array, y_ME: Array, clusters: int, seed: int) -> tuple[Array, Array]:
    a = kmeans(x_ND, clusters, seed=seed, restarts=4, iterations=30).centers.numpy()
    b = kmeans(y_ME, clusters, seed=seed + 1000, restarts=4, iterations=30).centers.numpy()
    best = None
    for start in range(30):
        generator = np.random.default_rng(seed * 100 + start)
        options = {"maximize": True, "rng": generator}
        first = quadratic_assignment(a @ a.T, b @ b.T, options=options | {"P0": "randomized"})
        guess = np.stack([np.arange(clusters), first.col_ind], axis=1)
        found = quadratic_assignment(a @ a.T, b @ b.T, method="2opt", options=options | {"partial_guess": guess})
        if best is None or found.fun > best.fun:
            best = found
    assert best is not None
    return a, b[best.col_ind]


def _rotation(x_ND: Array, y_ME: Array, left: Array, right: Array) -> Array:
    scores_NM = left @ right.T
    to_new, to_old = scores_NM.argmax(1), scores_NM.argmax(0)
    mutual = np.flatnonzero(to_old[to_new] == np.arange(len(left)))
    u, _, v = np.linalg.svd(x_ND[mutual].T @ y_ME[to_new[mutual]], full_matrices=False)
    return np.asarray(u @ v)


def _standardized(parts: list[Array]) -> Array:
    joined = np.concatenate(parts, axis=1)
    return _unit((joined - joined.mean(0)) / joined.std(0))


def _unit(x_ND: Array) -> Array:
    return np.asarray(x_ND / np.maximum(np.linalg.norm(x_ND, axis=1, keepdims=True), 1e-12))
