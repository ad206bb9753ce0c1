"""Score all mapped rows of the index for queries, and keep the highest scores.

If a pair is a query, its map must not have been fitted on this pair. For a linear smoother, the offset of row x without
pair j is f(x) - h(x, j) r_j / (1 - h_jj), where h is the weight of pair j in the prediction and r_j its residual.

Shapes: `N` rows of the index, `n` pairs, `b` rows of a block, `Q` queries, `K` kept scores.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.migration._inputs import RowSource
from unialign.migration._maps import FOLDS, FittedMap, Smoothing, fold_rotations

Array = NDArray[Any]
Score = Callable[[Array], Array]

# Maximum number of rows of the index that are scored, and number of rows that are scored at once.
_MOST_ROWS, _BLOCK = 100_000, 4096


@dataclass(frozen=True)
class TopScores:
    """The highest scores of the mapped rows of the index.

    Attributes:
        scores: (Q, K), descending.
        weight: number of rows of the index that each scored row represents, 1 if all rows were scored.
    """

    scores: Array
    weight: float


def query_scores(fitted: FittedMap, queries_QE: Array) -> Score:
    """Return a function of (b, D) old rows that returns the (Q, b) scores of the mapped rows."""
    return lambda x_bD: np.asarray(queries_QE @ fitted.map(x_bD).T)


def pair_query_scores(fitted: FittedMap, x_nD: Array, y_nE: Array, own_Q: NDArray[np.int64]) -> Score:
    """Return the function for the queries y_nE[own_Q], each scored with a map fitted without its pair."""
    if fitted.map.method == "procrustes":
        rotations, fold_Q = fold_rotations(x_nD, y_nE), own_Q % FOLDS

        def rotated(x_bD: Array) -> Array:
            scores_Qb = np.empty((len(own_Q), len(x_bD)))
            for fold in range(FOLDS):
                scores_Qb[fold_Q == fold] = y_nE[own_Q[fold_Q == fold]] @ rotations[fold, fold](x_bD).T
            return scores_Qb

        return rotated
    if fitted.smoothing is None:
        return query_scores(fitted, y_nE[own_Q])
    return _smoothed(fitted, fitted.smoothing, y_nE, own_Q)


def top_scores(
    score: Score, index: RowSource, keep: int, *, own_rows_Q: NDArray[np.int64] | None, seed: int
) -> TopScores:
    """Return the `keep` highest scores of each query; the row of the index at `own_rows_Q` is left out."""
    kept_QK, scored = np.empty((0, 0)), 0
    for numbers_b, x_bD in _blocks(index, seed):
        scores_Qb = score(x_bD)
        if own_rows_Q is not None:
            place_Q = np.minimum(np.searchsorted(numbers_b, own_rows_Q), len(numbers_b) - 1)
            found_Q = np.flatnonzero(numbers_b[place_Q] == own_rows_Q)
            scores_Qb[found_Q, place_Q[found_Q]] = -np.inf
        scored += len(numbers_b)
        kept_QK = np.concatenate([kept_QK, scores_Qb], axis=1) if kept_QK.size else scores_Qb
        if kept_QK.shape[1] > keep:
            last = kept_QK.shape[1] - keep
            kept_QK = np.partition(kept_QK, last, axis=1)[:, last:]
    return TopScores(-np.sort(-kept_QK, axis=1), len(index) / scored)


def _blocks(index: RowSource, seed: int) -> Iterator[tuple[NDArray[np.int64], Array]]:
    if len(index) > _MOST_ROWS:
        chosen_n = np.sort(np.random.default_rng(seed).choice(len(index), _MOST_ROWS, replace=False, shuffle=False))
        for start in range(0, _MOST_ROWS, _BLOCK):
            yield chosen_n[start : start + _BLOCK], index.take(chosen_n[start : start + _BLOCK])
        return
    for rows, x_bD in index.blocks():
        for start in range(0, len(x_bD), _BLOCK):
            part_bD = x_bD[start : start + _BLOCK]
            yield rows.start + start + np.arange(len(part_bD)), part_bD


def _smoothed(fitted: FittedMap, smoothing: Smoothing, y_nE: Array, own_Q: NDArray[np.int64]) -> Score:
    """Expand the products of y_j and the rows mapped without j, so that no (Q, b, E) array is needed."""
    smoother, penalty, settings = smoothing.smoother, smoothing.penalty, fitted.map.settings
    is_scaled = "length" not in settings
    mean_E = np.zeros(y_nE.shape[1]) if is_scaled else fitted.map.tensors["mean_new"]
    weighted_Qr = smoother.vectors[own_Q] * smoother.weights(penalty)
    free_Q1 = np.maximum(1 - smoother.leverage(penalty), 1e-12)[own_Q, None]
    rows_QE, residual_QE = y_nE[own_Q], smoother.residuals(smoothing.targets, penalty)[own_Q]
    own_product_Q1 = (rows_QE * residual_QE).sum(1)[:, None]
    own_square_Q1 = (residual_QE**2).sum(1)[:, None]
    own_mean_Q1 = (residual_QE @ mean_E)[:, None]

    def score(x_bD: Array) -> Array:
        offset_bE = fitted.map.offsets(x_bD) + (fitted.map.tensors["mean_new"] if is_scaled else 0.0)
        factor_Qb = (1 / len(y_nE) + weighted_Qr @ smoothing.coordinates(x_bD).T) / free_Q1
        along_Qb = rows_QE @ offset_bE.T - factor_Qb * own_product_Q1
        squared_Qb = (offset_bE**2).sum(1) - 2 * factor_Qb * (residual_QE @ offset_bE.T) + factor_Qb**2 * own_square_Q1
        size_Qb = np.sqrt(np.maximum(squared_Qb, 1e-24))
        if is_scaled:
            return np.asarray(along_Qb / size_Qb)
        length = settings["length"]
        mean_Qb = offset_bE @ mean_E - factor_Qb * own_mean_Q1
        norm_Qb = np.sqrt(np.maximum(mean_E @ mean_E + length**2 + 2 * length * mean_Qb / size_Qb, 1e-24))
        return np.asarray(((rows_QE @ mean_E)[:, None] + length * along_Qb / size_Qb) / norm_Qb)

    return score
