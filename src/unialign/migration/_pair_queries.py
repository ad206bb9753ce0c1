"""Score each pair as a query against all other pairs, with maps that are fitted without the query and the candidate.

If the new row of pair j is the query, the map must not have been fitted on pair j. Otherwise, the neighbors of j would
be mapped too close to j. For a linear smoother with the hat matrix H and the residuals r, the residual of pair i
without the pairs i and j is ((1 - H_jj) r_i + H_ij r_j) / ((1 - H_ii)(1 - H_jj) - H_ij^2), which follows from the
inverse of a 2 x 2 block of 1 - H.

Shapes: `n` pairs, `q` queries of a block, `E` dimension of the new rows.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.migration._maps import FOLDS, FittedMap, Smoothing, fold_rotations

Array = NDArray[Any]

_BLOCK = 256


def pair_scores(fitted: FittedMap, x_nD: Array, y_nE: Array, own_Q: NDArray[np.int64]) -> Array:
    """Return the scores of all pairs for the queries; a query's score with itself is arbitrary."""
    if fitted.map.method == "procrustes":
        return _rotated_scores(x_nD, y_nE, own_Q)
    if fitted.smoothing is None:
        return np.asarray(y_nE[own_Q] @ fitted.left_out.T)
    blocks = [
        _smoothed_scores(fitted, fitted.smoothing, y_nE, own_Q[i : i + _BLOCK]) for i in range(0, len(own_Q), _BLOCK)
    ]
    return np.concatenate(blocks)


def _smoothed_scores(fitted: FittedMap, smoothing: Smoothing, y_nE: Array, own_q: NDArray[np.int64]) -> Array:
    """Expand the products of y_j and the rows of i fitted without i and j, so that no (q, n, E) array is needed."""
    smoother, penalty, settings = smoothing.smoother, smoothing.penalty, fitted.map.settings
    residual_nE = smoother.residuals(smoothing.targets, penalty)
    hat_qn = 1 / len(y_nE) + (smoother.vectors[own_q] * smoother.weights(penalty)) @ smoother.vectors.T
    free_n = np.maximum(1 - smoother.leverage(penalty), 1e-12)
    free_q1 = free_n[own_q, None]
    determinant_qn = np.maximum(free_n * free_q1 - hat_qn**2, 1e-12 * free_n * free_q1)
    a_qn, b_qn = free_q1 / determinant_qn, hat_qn / determinant_qn  # factors of r_i and r_j
    # The offset of i is c_i - a r_i - b r_j, where c_i is the full target of i minus the mean.
    is_scaled = "length" not in settings
    mean_E = np.zeros(y_nE.shape[1]) if is_scaled else fitted.map.tensors["mean_new"]
    c_nE = smoothing.full - mean_E
    rows_qE, own_residual_qE = y_nE[own_q], residual_nE[own_q]
    rr_n, cr_n = (residual_nE**2).sum(1), (c_nE * residual_nE).sum(1)
    squared_qn = (c_nE**2).sum(1) + a_qn**2 * rr_n + b_qn**2 * rr_n[own_q, None]
    squared_qn += 2 * a_qn * b_qn * (own_residual_qE @ residual_nE.T) - 2 * a_qn * cr_n
    squared_qn -= 2 * b_qn * (own_residual_qE @ c_nE.T)
    along_qn = rows_qE @ c_nE.T - a_qn * (rows_qE @ residual_nE.T) - b_qn * (rows_qE * own_residual_qE).sum(1)[:, None]
    size_qn = np.sqrt(np.maximum(squared_qn, 1e-24))
    if is_scaled:
        return np.asarray(along_qn / size_qn)
    length = settings["length"]
    mean_qn = c_nE @ mean_E - a_qn * (residual_nE @ mean_E) - b_qn * (own_residual_qE @ mean_E)[:, None]
    norm_qn = np.sqrt(np.maximum(mean_E @ mean_E + length**2 + 2 * length * mean_qn / size_qn, 1e-24))
    return np.asarray(((rows_qE @ mean_E)[:, None] + length * along_qn / size_qn) / norm_qn)


def _rotated_scores(x_nD: Array, y_nE: Array, own_Q: NDArray[np.int64]) -> Array:
    """Score each fold with rotations that are fitted without this fold and the fold of the query."""
    fold_n = np.arange(len(x_nD)) % FOLDS
    scores_Qn = np.empty((len(own_Q), len(x_nD)))
    for (first, second), mapped in fold_rotations(x_nD, y_nE).items():
        for query, candidate in {(first, second), (second, first)}:
            rows, columns = np.flatnonzero(fold_n[own_Q] == query), np.flatnonzero(fold_n == candidate)
            scores_Qn[np.ix_(rows, columns)] = y_nE[own_Q[rows]] @ mapped(x_nD[columns]).T
    return scores_Qn
