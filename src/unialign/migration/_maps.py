"""Maps from the old to the new embedding space, with held-out predictions for the pairs.

A map predicts the offset d(x) = f(x) - mean(y) of a new row from the mean of the new rows. The stored row of x is
unit(mean(y) + rho d / |d|), where rho is the mean length of y - mean(y) over the pairs. Least squares shrinks offsets;
restoring their length keeps mapped rows comparable with true new rows in a mixed index.

Shapes: `N` rows, `n` pairs, `D` dimension of the old rows, `E` dimension of the new rows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.migration._smoother import Smoother

Array = NDArray[Any]

# Kernel ridge regression needs about this many pairs to outperform ridge regression.
KERNEL_PAIRS = 600
# Maximum number of pairs for kernel ridge regression, which decomposes an (n, n) kernel matrix.
KERNEL_LIMIT = 5000
_BANDWIDTHS = (0.25, 0.5, 1.0)
FOLDS = 5
# Number of alternating steps of scaled ridge regression, and minimum length of a target.
_SCALINGS, _SHORTEST = 3, 0.05


@dataclass(frozen=True)
class Map:
    """Fitted map.

    Attributes:
        method: name of the method.
        tensors: float64 arrays: `mean_old` (D,), `mean_new` (E,), `weight` (D, E) and, for a kernel, `centers` (n, D),
            `coefficients` (n, E) and `offset` (E,); empty for the identity.
        settings: numbers such as `length` (rho), the chosen penalty and the bandwidth of the kernel.
        dims: (D, E).
    """

    method: str
    tensors: Mapping[str, Array]
    settings: Mapping[str, float]
    dims: tuple[int, int]

    def __call__(self, x_ND: Array) -> Array:
        if self.method == "identity":
            return unit(padded(x_ND, self.dims[1]))
        if self.method == "scaled_ridge":
            return unit(self.tensors["mean_new"] + self.offsets(x_ND))
        return stored_rows(self.offsets(x_ND), self.tensors["mean_new"], self.settings["length"])

    def offsets(self, x_ND: Array) -> Array:
        tensors = self.tensors
        if self.method != "kernel":
            return np.asarray((x_ND - tensors["mean_old"]) @ tensors["weight"])
        scale = self.settings["bandwidth"] / self.settings["median"]
        kernel_Nn = gaussian_kernel(x_ND, tensors["centers"], scale)
        return np.asarray(kernel_Nn @ tensors["coefficients"] - tensors["offset"])


@dataclass(frozen=True)
class Smoothing:
    """The linear smoother of a fitted map.

    Attributes:
        targets: (n, E) targets of the smoother.
        full: (n, E) targets of the whole map; the prediction is `full` minus the residual of the smoother.
        coordinates: function of (b, D) old rows that returns their (b, r) entries of the eigenvectors.
    """

    smoother: Smoother
    penalty: float
    targets: Array
    full: Array
    coordinates: Callable[[Array], Array]


@dataclass(frozen=True)
class FittedMap:
    """Map with held-out predictions.

    Attributes:
        left_out: (n, E) stored rows of the pairs, each predicted by a map that was fitted without this pair.
        error: mean squared distance, in [0, 4], between left-out and true new rows, after subtraction of the mean of
            the new rows and normalization.
        smoothing: the smoother of the map; None for the identity and rotations.
    """

    map: Map
    left_out: Array
    error: float
    smoothing: Smoothing | None = None


def stored_rows(offsets_NE: Array, mean_E: Array, length: float) -> Array:
    """Return unit(mean + length * offset / |offset|); an offset of zero gives the mean."""
    size_N1 = np.linalg.norm(offsets_NE, axis=1, keepdims=True)
    return unit(mean_E + length * offsets_NE / np.maximum(size_N1, 1e-12))


def unit(x_ND: Array) -> Array:
    """Normalize rows to unit length; a row of zeros stays zero."""
    return np.asarray(x_ND / np.maximum(np.linalg.norm(x_ND, axis=1, keepdims=True), 1e-12))


def padded(x_ND: Array, dim: int) -> Array:
    if x_ND.shape[1] >= dim:
        return x_ND[:, :dim]
    return np.pad(x_ND, ((0, 0), (0, dim - x_ND.shape[1])))


def gaussian_kernel(x_ND: Array, centers_nD: Array, scale: float) -> Array:
    """Return exp(-scale |x - center|^2)."""
    squared_Nn = (x_ND**2).sum(1)[:, None] + (centers_nD**2).sum(1) - 2 * x_ND @ centers_nD.T
    return np.asarray(np.exp(-scale * np.maximum(squared_Nn, 0)))


def fit_identity(x_nD: Array, y_nE: Array) -> FittedMap:
    found = Map("identity", {}, {}, (x_nD.shape[1], y_nE.shape[1]))
    return _fitted(found, found(x_nD), y_nE)


def fit_procrustes(x_nD: Array, y_nE: Array) -> FittedMap:
    """Fit a rotation of the centered rows (Schoenemann 1966); held-out predictions use five folds."""
    fold_n = np.arange(len(x_nD)) % FOLDS
    left_out_nE = np.empty_like(y_nE)
    for fold in range(FOLDS):
        kept = fold_n != fold
        left_out_nE[~kept] = _rotation(x_nD[kept], y_nE[kept])(x_nD[~kept])
    return _fitted(_rotation(x_nD, y_nE), left_out_nE, y_nE)


def fold_rotations(x_nD: Array, y_nE: Array) -> dict[tuple[int, int], Map]:
    """Return (a, b) -> rotation that is fitted without the folds a and b, for all a <= b."""
    fold_n = np.arange(len(x_nD)) % FOLDS
    kept = {(a, b): (fold_n != a) & (fold_n != b) for a in range(FOLDS) for b in range(a, FOLDS)}
    return {folds: _rotation(x_nD[rows], y_nE[rows]) for folds, rows in kept.items()}


def fit_ridge(x_nD: Array, y_nE: Array) -> FittedMap:
    return _linear("ridge", x_nD, y_nE, np.zeros((x_nD.shape[1], y_nE.shape[1])))


def fit_identity_ridge(x_nD: Array, y_nE: Array) -> FittedMap:
    """Fit ridge regression of the difference from a scaled identity, for two versions of the same space."""
    start_DE = np.eye(x_nD.shape[1], y_nE.shape[1])
    x_nE, y_centered = padded(x_nD - x_nD.mean(0), y_nE.shape[1]), y_nE - y_nE.mean(0)
    total = float(np.square(x_nE).sum())
    scale = float((x_nE * y_centered).sum()) / total if total > 0 else 0.0
    return _linear("identity_ridge", x_nD, y_nE, scale * start_DE)


def fit_scaled_ridge(x_nD: Array, y_nE: Array) -> FittedMap:
    """Fit ridge regression with fitted target lengths, for PCA and other linear reductions.

    A linear reduction that normalizes its rows is y = W x / |W x|, which is not linear in x. The targets are therefore
    c y. In a few alternating steps, the length c of each target is set to the component of its left-out prediction
    along y.
    """
    centered_nD = x_nD - x_nD.mean(0)
    smoother = Smoother.from_features(centered_nD)
    length_n1 = np.ones((len(x_nD), 1))
    for step in range(_SCALINGS + 1):
        target_nE = length_n1 * y_nE
        penalty = smoother.best_penalty(target_nE)
        left_out_nE = target_nE - smoother.left_out_residuals(target_nE, penalty)
        if step < _SCALINGS:
            length_n1 = np.maximum((left_out_nE * y_nE).sum(1, keepdims=True), _SHORTEST)
            length_n1 = length_n1 / length_n1.mean()
    tensors = {
        "mean_old": x_nD.mean(0),
        "mean_new": target_nE.mean(0),
        "weight": centered_nD.T @ smoother.dual(target_nE, penalty),
    }
    found = Map("scaled_ridge", tensors, {"penalty": penalty}, (x_nD.shape[1], y_nE.shape[1]))
    smoothing = Smoothing(smoother, penalty, target_nE, target_nE, _linear_coordinates(smoother, x_nD))
    return _fitted(found, unit(left_out_nE), y_nE, smoothing)


def fit_kernel(x_nD: Array, y_nE: Array) -> FittedMap:
    """Fit kernel ridge regression with exp(-g |x - x'|^2 / median); leave-one-out error selects g in {0.25, 0.5, 1}."""
    squared_nn = np.maximum(2 - 2 * x_nD @ x_nD.T, 0)
    above = squared_nn[np.triu_indices(len(x_nD), 1)]
    median = float(np.median(above)) or 1.0
    best: tuple[float, float, float, Smoother, Array] | None = None
    for bandwidth in _BANDWIDTHS:
        kernel_nn = np.exp(-bandwidth * squared_nn / median)
        mean_n = kernel_nn.mean(0)
        smoother = Smoother.from_kernel(kernel_nn - mean_n - mean_n[:, None] + mean_n.mean())
        penalty = smoother.best_penalty(y_nE)
        error = float(np.square(smoother.left_out_residuals(y_nE, penalty)).mean())
        if best is None or error < best[0]:
            best = error, bandwidth, penalty, smoother, mean_n
    assert best is not None
    _, bandwidth, penalty, smoother, mean_n = best
    coefficients_nE = smoother.dual(y_nE, penalty)
    tensors = {
        "mean_new": y_nE.mean(0),
        "centers": x_nD,
        "coefficients": coefficients_nE,
        "offset": mean_n @ coefficients_nE,
    }
    settings = {"length": _length(y_nE), "bandwidth": bandwidth, "median": median, "penalty": penalty}
    found = Map("kernel", tensors, settings, (x_nD.shape[1], y_nE.shape[1]))
    center = mean_n.mean()

    def coordinates(x_bD: Array) -> Array:
        kernel_bn = gaussian_kernel(x_bD, x_nD, bandwidth / median)
        centered_bn = kernel_bn - mean_n - kernel_bn.mean(1, keepdims=True) + center
        return np.asarray(centered_bn @ smoother.vectors / smoother.values)

    return _smoothed(found, Smoothing(smoother, penalty, y_nE, y_nE, coordinates), y_nE)


METHODS: Mapping[str, Callable[[Array, Array], FittedMap]] = {
    "identity": fit_identity,
    "procrustes": fit_procrustes,
    "ridge": fit_ridge,
    "identity_ridge": fit_identity_ridge,
    "scaled_ridge": fit_scaled_ridge,
    "kernel": fit_kernel,
}


def _linear(method: str, x_nD: Array, y_nE: Array, start_DE: Array) -> FittedMap:
    centered_nD = x_nD - x_nD.mean(0)
    target_nE = y_nE - centered_nD @ start_DE
    smoother = Smoother.from_features(centered_nD)
    penalty = smoother.best_penalty(target_nE)
    weight_DE = start_DE + centered_nD.T @ smoother.dual(target_nE, penalty)
    tensors = {"mean_old": x_nD.mean(0), "mean_new": y_nE.mean(0), "weight": weight_DE}
    found = Map(method, tensors, {"length": _length(y_nE), "penalty": penalty}, (x_nD.shape[1], y_nE.shape[1]))
    return _smoothed(found, Smoothing(smoother, penalty, target_nE, y_nE, _linear_coordinates(smoother, x_nD)), y_nE)


def _linear_coordinates(smoother: Smoother, x_nD: Array) -> Callable[[Array], Array]:
    mean_D = x_nD.mean(0)
    axes_Dr = (x_nD - mean_D).T @ smoother.vectors / smoother.values
    return lambda x_bD: np.asarray((x_bD - mean_D) @ axes_Dr)


def _rotation(x_nD: Array, y_nE: Array) -> Map:
    centered_nD, target_nE = x_nD - x_nD.mean(0), y_nE - y_nE.mean(0)
    # The cross-covariance has at most rank n, so the rotation is computed within the span of the pairs.
    (q_old, r_old), (q_new, r_new) = np.linalg.qr(centered_nD.T), np.linalg.qr(target_nE.T)
    left, _, right = np.linalg.svd(r_old @ r_new.T, full_matrices=False)
    tensors = {
        "mean_old": x_nD.mean(0),
        "mean_new": y_nE.mean(0),
        "weight": (q_old @ left) @ (right @ q_new.T),
    }
    return Map("procrustes", tensors, {"length": _length(y_nE)}, (x_nD.shape[1], y_nE.shape[1]))


def _smoothed(found: Map, smoothing: Smoothing, y_nE: Array) -> FittedMap:
    residual_nE = smoothing.smoother.left_out_residuals(smoothing.targets, smoothing.penalty)
    rows_nE = stored_rows(
        y_nE - residual_nE - found.tensors["mean_new"], found.tensors["mean_new"], found.settings["length"]
    )
    return _fitted(found, rows_nE, y_nE, smoothing)


def _fitted(found: Map, left_out_nE: Array, y_nE: Array, smoothing: Smoothing | None = None) -> FittedMap:
    return FittedMap(found, left_out_nE, _error(left_out_nE, y_nE), smoothing)


def _error(rows_nE: Array, y_nE: Array) -> float:
    # Directions do not change if the length of the offsets is restored, so all maps are compared fairly.
    mean_E = y_nE.mean(0)
    return float(np.square(unit(rows_nE - mean_E) - unit(y_nE - mean_E)).sum(1).mean())


def _length(y_nE: Array) -> float:
    return float(np.linalg.norm(y_nE - y_nE.mean(0), axis=1).mean())
