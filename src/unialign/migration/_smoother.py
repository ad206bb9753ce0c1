"""Ridge regression in the eigenbasis of a centered kernel, with exact leave-one-out predictions.

The intercept is not penalized. The hat matrix is therefore H = 1 1^T / n + U diag(s / (s + penalty)) U^T, where U and s
are the eigenvectors and eigenvalues of the double-centered kernel. The leave-one-out residual of a linear smoother is
r_i / (1 - H_ii) (Allen 1974; Hastie, Tibshirani & Friedman, "The Elements of Statistical Learning", eq. 7.64). H must
include the intercept. Without the term 1 / n on the diagonal of H, predictions with a tiny penalty would seem to be
perfect.

Shapes: `n` pairs, `r` eigenvectors, `E` dimension of the new rows, `P` penalties.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Penalties relative to the mean eigenvalue.
_PENALTIES = 10.0 ** np.arange(-5, 4.01, 0.5)
# Relative eigenvalues below this limit are rounding errors.
_RANK = 1e-10


@dataclass(frozen=True)
class Smoother:
    """Eigenvectors (n, r) and positive eigenvalues (r,) of a double-centered kernel."""

    vectors: Array
    values: Array

    @classmethod
    def from_kernel(cls, kernel_nn: Array) -> "Smoother":
        values_n, vectors_nn = np.linalg.eigh(kernel_nn)
        kept = values_n > _RANK * max(values_n[-1], 0.0)
        return cls(vectors_nn[:, kept], values_n[kept])

    @classmethod
    def from_features(cls, x_nD: Array) -> "Smoother":
        """Decompose X X' or X'X, whichever is smaller."""
        if len(x_nD) <= x_nD.shape[1]:
            return cls.from_kernel(x_nD @ x_nD.T)
        values_D, axes_DD = np.linalg.eigh(x_nD.T @ x_nD)
        kept = values_D > _RANK * max(values_D[-1], 0.0)
        return cls(x_nD @ axes_DD[:, kept] / np.sqrt(values_D[kept]), values_D[kept])

    @cached_property
    def penalties(self) -> Array:
        """Multiples of the mean eigenvalue."""
        scale = float(self.values.sum()) / max(1, len(self.vectors)) if len(self.values) else 1.0
        return _PENALTIES * scale

    def weights(self, penalty: float) -> Array:
        return self.values / (self.values + penalty)

    def leverage(self, penalty: float) -> Array:
        """Return the diagonal of the hat matrix, including the intercept."""
        return 1 / len(self.vectors) + self.vectors**2 @ self.weights(penalty)

    def residuals(self, y_nE: Array, penalty: float) -> Array:
        centered_nE: Any = y_nE - y_nE.mean(0)
        residual_nE: Array = centered_nE - self.vectors @ (
            self.weights(penalty)[:, None] * (self.vectors.T @ centered_nE)
        )
        return residual_nE

    def left_out_residuals(self, y_nE: Array, penalty: float) -> Array:
        left_n = np.maximum(1 - self.leverage(penalty), 1e-12)
        residual_nE: Array = self.residuals(y_nE, penalty) / left_n[:, None]
        return residual_nE

    def best_penalty(self, y_nE: Array) -> float:
        errors = [float(np.square(self.left_out_residuals(y_nE, penalty)).mean()) for penalty in self.penalties]
        return float(self.penalties[int(np.argmin(errors))])

    def dual(self, y_nE: Array, penalty: float) -> Array:
        """Return the coefficients of the centered kernel functions."""
        centered_nE: Any = y_nE - y_nE.mean(0)
        coefficients_nE: Array = self.vectors @ ((self.vectors.T @ centered_nE) / (self.values + penalty)[:, None])
        return coefficients_nE
