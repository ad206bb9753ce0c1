"""Compute dense masked GCCA in float64 by adding the (N, N) smoothers of all modalities."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def standardized(x_nW: Array) -> tuple[Array, Array, Array]:
    """Return standardized rows, and the means and standard deviations of the columns."""
    mean, std = x_nW.mean(0), x_nW.std(0)
    return (x_nW - mean) / std, mean, std


def squared_distances(x_nW: Array, y_LW: Array) -> Array:
    return np.asarray(((x_nW[:, None] - y_LW[None]) ** 2).sum(-1))


def kernel_of(x_nW: Array, y_LW: Array, kernel: str, scale: float) -> Array:
    """Return the (n, L) Gaussian kernel of bandwidth `scale`, or the linear kernel divided by `scale`."""
    if kernel == "linear":
        return x_nW @ y_LW.T / scale
    return np.asarray(np.exp(-squared_distances(x_nW, y_LW) / (2 * scale)))


def masked_gcca(
    train: Mapping[str, Array],
    present: Mapping[str, NDArray[np.bool_]],
    new: Mapping[str, Array],
    *,
    kernel: str,
    regularization: float,
    power: float,
    dim: int,
) -> tuple[dict[str, Array], Array]:
    """Return the embeddings of new rows, normalized, and the eigenvalues.

    Every modality is a kernel ridge regression of the targets: (K + regularization n I)^-1, with a centered kernel.
    """
    items = len(next(iter(train.values())))
    counts = sum(present[name].astype(float) for name in train)
    total = np.zeros((items, items))
    solvers = {}
    for name, x_NW in train.items():
        rows = np.flatnonzero(present[name])
        x, mean, std = standardized(x_NW[rows])
        n = len(rows)
        scale = 1.0
        if kernel == "rbf":
            pairs = squared_distances(x, x)[np.triu_indices(n, 1)]
            scale = float(np.sort(pairs)[(len(pairs) - 1) // 2])
        gram = kernel_of(x, x, kernel, scale)
        center = np.eye(n) - 1 / n
        centered = center @ gram @ center
        inverse = np.linalg.inv(centered + regularization * n * np.eye(n))
        total[np.ix_(rows, rows)] += centered @ inverse
        fresh = kernel_of((new[name] - mean) / std, x, kernel, scale)
        solvers[name] = rows, (fresh - gram.mean(0)) @ center @ inverse
    root = 1 / np.sqrt(counts)
    values, vectors = np.linalg.eigh(root[:, None] * (total + total.T) / 2 * root)
    values, vectors = values[::-1][:dim], vectors[:, ::-1][:, :dim]
    targets = root[:, None] * vectors
    raw = {name: solver @ targets[rows] * np.maximum(values, 0) ** power for name, (rows, solver) in solvers.items()}
    return {name: z / np.linalg.norm(z, axis=1, keepdims=True) for name, z in raw.items()}, values
