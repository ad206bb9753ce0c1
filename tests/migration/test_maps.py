"""Test the maps and their left-out predictions against explicit refits in float64."""

import numpy as np
import pytest
from migration_cases import kernel_prediction, new_rows, ridge_prediction, rotation, rows, unit

from unialign.migration import fit_candidates
from unialign.migration._maps import METHODS, _rotation, gaussian_kernel, stored_rows
from unialign.migration._pair_queries import pair_scores
from unialign.migration._smoother import Smoother


@pytest.mark.parametrize("pairs", [5, 30])
@pytest.mark.parametrize("penalty", [1e-6, 0.1, 10.0])
def test_left_out_ridge_residuals_equal_refits(pairs, penalty):
    x, y = rows(pairs)
    found = Smoother.from_features(x - x.mean(0)).left_out_residuals(y, penalty)
    for i in range(pairs):
        kept = np.arange(pairs) != i
        expected = y[i] - ridge_prediction(x[kept], y[kept], x[i], penalty)
        np.testing.assert_allclose(found[i], expected, atol=1e-6 if penalty < 1e-3 else 1e-9)


@pytest.mark.parametrize("penalty", [1e-6, 0.01, 1.0])
def test_left_out_kernel_residuals_equal_refits(penalty):
    x, y = rows(20)
    kernel = gaussian_kernel(x, x, 0.7)
    center = np.eye(20) - 1 / 20
    found = Smoother.from_kernel(center @ kernel @ center).left_out_residuals(y, penalty)
    for i in range(20):
        kept = np.arange(20) != i
        expected = y[i] - kernel_prediction(x[kept], y[kept], x[i], penalty, 0.7)
        np.testing.assert_allclose(found[i], expected, rtol=1e-4, atol=1e-6)


def test_a_tiny_penalty_does_not_look_perfect():
    """Without the intercept in the hat matrix, the left-out residuals of a kernel would vanish with the penalty."""
    rng = np.random.default_rng(0)
    x, y = unit(rng.standard_normal((40, 30))), unit(rng.standard_normal((40, 6)))
    kernel = gaussian_kernel(x, x, 1.0)
    center = np.eye(40) - 1 / 40
    smoother = Smoother.from_kernel(center @ kernel @ center)
    error = np.square(smoother.left_out_residuals(y, 1e-9)).sum(1).mean()
    assert error > np.square(y - y.mean(0)).sum(1).mean()


def test_predictions_equal_references():
    x, y = rows(40)
    at = unit(np.random.default_rng(9).standard_normal((6, 7)))
    ridge = METHODS["ridge"](x, y).map
    expected = ridge_prediction(x, y, at, ridge.settings["penalty"]) - y.mean(0)
    np.testing.assert_allclose(ridge.offsets(at), expected, atol=1e-10)
    kernel = METHODS["kernel"](x, y).map
    scale = kernel.settings["bandwidth"] / kernel.settings["median"]
    expected = [kernel_prediction(x, y, row, kernel.settings["penalty"], scale) - y.mean(0) for row in at]
    np.testing.assert_allclose(kernel.offsets(at), expected, atol=1e-7)


@pytest.mark.parametrize("method", ["ridge", "identity_ridge", "kernel"])
def test_left_out_rows_are_stored_rows_of_refits(method):
    x, y = rows(24, dim=5)
    fitted = METHODS[method](x, y)
    settings, kept = fitted.map.settings, np.arange(24) != 3
    if method == "kernel":
        scale = settings["bandwidth"] / settings["median"]
        predicted = kernel_prediction(x[kept], y[kept], x[3], settings["penalty"], scale)
    elif method == "ridge":
        predicted = ridge_prediction(x[kept], y[kept], x[3], settings["penalty"])
    else:
        centered = x - x.mean(0)
        scale = (centered * (y - y.mean(0))).sum() / np.square(centered).sum()
        rest = ridge_prediction(x[kept], y[kept] - scale * centered[kept], x[3], settings["penalty"])
        predicted = rest + scale * centered[3]
    expected = stored_rows((predicted - y.mean(0))[None], y.mean(0), settings["length"])[0]
    np.testing.assert_allclose(fitted.left_out[3], expected, atol=1e-6)


def test_stored_rows_have_the_length_of_the_pairs():
    x, y = rows(50)
    found = METHODS["ridge"](x, y).map
    mean, length = y.mean(0), np.linalg.norm(y - y.mean(0), axis=1).mean()
    offsets = found.offsets(x)
    expected = mean + length * offsets / np.linalg.norm(offsets, axis=1, keepdims=True)
    np.testing.assert_allclose(found(x), expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-12)
    np.testing.assert_allclose(stored_rows(np.zeros((1, 5)), mean, length)[0], mean / np.linalg.norm(mean))


@pytest.mark.parametrize("dims", [(48, 48), (48, 30), (30, 48)])
def test_a_planted_rotation_is_found(dims):
    z = new_rows(dim=48)[:300]
    old = z @ rotation(48)[:, : dims[0]] if dims[0] == 48 else z[:, : dims[0]]
    y = unit(z[:, : dims[1]])
    fits = fit_candidates(unit(old), y, "auto")
    assert set(fits) == set(METHODS) - {"kernel"}
    if dims[0] == 48:
        assert fits["ridge"].error < 0.02
    if dims == (48, 48):
        assert fits["procrustes"].error < 1e-3
        np.testing.assert_allclose(fits["procrustes"].map.tensors["weight"], rotation(48).T, atol=1e-9)


def test_procrustes_leaves_out_whole_folds():
    x, y = rows(20, dim=5)
    fitted = METHODS["procrustes"](x, y)
    kept = np.arange(20) % 5 != 2
    cross = (x[kept] - x[kept].mean(0)).T @ (y[kept] - y[kept].mean(0))
    left, _, right = np.linalg.svd(cross)
    offsets = (x[~kept] - x[kept].mean(0)) @ left @ right
    length = np.linalg.norm(y[kept] - y[kept].mean(0), axis=1).mean()
    np.testing.assert_allclose(fitted.left_out[~kept], stored_rows(offsets, y[kept].mean(0), length), atol=1e-9)


@pytest.mark.parametrize("method", list(METHODS))
def test_pair_scores_equal_refits_without_both_pairs(method):
    x, y = rows(25, dim=5)
    fitted = METHODS[method](x, y)
    own = np.array([2, 7, 24])
    found = pair_scores(fitted, x, y, own)
    settings, tensors = fitted.map.settings, fitted.map.tensors
    for q, j in enumerate(own):
        for i in (0, 9, 23):
            kept = ~np.isin(np.arange(25), [i, j])
            if method == "identity":
                expected = y[j] @ fitted.map(x[i : i + 1])[0]
            elif method == "procrustes":
                kept = ~np.isin(np.arange(25) % 5, [i % 5, j % 5])
                expected = y[j] @ _rotation(x[kept], y[kept])(x[i : i + 1])[0]
            elif method == "scaled_ridge":
                target = fitted.smoothing.targets
                offset = ridge_prediction(x[kept], target[kept], x[i], settings["penalty"])
                expected = y[j] @ offset / np.linalg.norm(offset)
            else:
                if method == "kernel":
                    scale = settings["bandwidth"] / settings["median"]
                    predicted = kernel_prediction(x[kept], y[kept], x[i], settings["penalty"], scale)
                else:
                    target = fitted.smoothing.targets
                    predicted = ridge_prediction(x[kept], target[kept], x[i], settings["penalty"]) + (y - target)[i]
                offset = predicted - tensors["mean_new"]
                expected = y[j] @ stored_rows(offset[None], tensors["mean_new"], settings["length"])[0]
            assert found[q, i] == pytest.approx(expected, abs=1e-5), (j, i)


def test_a_normalized_linear_reduction_is_found_exactly():
    z = new_rows(dim=30)[:200]
    y = unit((z - z.mean(0)) @ np.random.default_rng(4).standard_normal((30, 6)))
    fits = fit_candidates(z, y, "auto")
    assert min(fits, key=lambda name: fits[name].error) == "scaled_ridge"
    assert fits["scaled_ridge"].error < 0.1 * fits["ridge"].error
