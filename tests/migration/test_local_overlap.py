"""Test the scores of the whole index, the local estimate of the overlap, and its combination with the extrapolation."""

import math

import numpy as np
import pytest
from migration_cases import kernel_prediction, new_rows, overlap, ridge_prediction, rows, sample, unit

from unialign.migration import _index_scores, bridge, open_rows
from unialign.migration._index_scores import TopScores, pair_query_scores, query_scores, top_scores
from unialign.migration._interval import _combined
from unialign.migration._local_overlap import LocalOverlap, expected_overlap, local_overlap
from unialign.migration._maps import METHODS, _rotation, stored_rows


@pytest.mark.parametrize("method", list(METHODS))
def test_scores_of_the_index_equal_refits_without_the_query(method):
    x, y = rows(25, dim=5)
    index = unit(np.random.default_rng(9).standard_normal((4, 5)) + 0.5)
    fitted, own = METHODS[method](x, y), np.array([2, 7, 24])
    found = pair_query_scores(fitted, x, y, own)(index)
    settings, tensors = fitted.map.settings, fitted.map.tensors
    for q, j in enumerate(own):
        kept = np.arange(25) != j
        for i, at in enumerate(index):
            if method == "identity":
                expected = y[j] @ fitted.map(at[None])[0]
            elif method == "procrustes":
                kept = np.arange(25) % 5 != j % 5
                expected = y[j] @ _rotation(x[kept], y[kept])(at[None])[0]
            elif method == "scaled_ridge":
                offset = ridge_prediction(x[kept], fitted.smoothing.targets[kept], at, settings["penalty"])
                expected = y[j] @ offset / np.linalg.norm(offset)
            else:
                if method == "kernel":
                    scale = settings["bandwidth"] / settings["median"]
                    predicted = kernel_prediction(x[kept], y[kept], at, settings["penalty"], scale)
                else:
                    target, mean = fitted.smoothing.targets, x.mean(0)
                    start = np.linalg.lstsq(x - mean, y - target, rcond=None)[0]
                    predicted = ridge_prediction(x[kept], target[kept], at, settings["penalty"]) + (at - mean) @ start
                offset = predicted - tensors["mean_new"]
                expected = y[j] @ stored_rows(offset[None], tensors["mean_new"], settings["length"])[0]
            assert found[q, i] == pytest.approx(expected, abs=1e-5), (j, i)


def test_the_highest_scores_are_kept_without_the_row_of_the_query(monkeypatch):
    x, y = rows(30)
    fitted = METHODS["ridge"](x, y)
    old = unit(np.random.default_rng(1).standard_normal((57, 7)))
    queries, own = y[:4], np.array([0, 56, 13, 14])
    scores = queries @ fitted.map(old).T
    scores[np.arange(4), own] = -np.inf
    expected = -np.sort(-scores, axis=1)[:, :9]
    for block in (4096, 14, 5):
        monkeypatch.setattr(_index_scores, "_BLOCK", block)
        found = top_scores(query_scores(fitted, queries), open_rows(old, "old"), 9, own_rows_Q=own, seed=0)
        np.testing.assert_allclose(found.scores, expected)
        assert found.weight == 1
    monkeypatch.setattr(_index_scores, "_MOST_ROWS", 19)
    found = top_scores(query_scores(fitted, queries), open_rows(old, "old"), 40, own_rows_Q=own, seed=0)
    assert found.scores.shape == (4, 19)
    assert found.weight == 3


def planted(queries=400, items=3000, pairs=240, sharpness=20.0, seed=0):
    """Return scores of an index and of its pairs; true scores have a common shift for each query and noise."""
    rng = np.random.default_rng(seed)
    mapped = 0.2 * rng.standard_normal((queries, items))
    true = 0.8 * mapped + 0.8 / sharpness * rng.standard_normal(mapped.shape) + rng.standard_normal((queries, 1))
    chosen = rng.permutation(items)[:pairs]
    first = [np.argsort(-z, axis=1)[:, :10] for z in (true, mapped)]
    truth = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(*first, strict=True)])
    return TopScores(-np.sort(-mapped, axis=1), 1.0), true[:, chosen], mapped[:, chosen], truth


@pytest.mark.parametrize("sharpness", [5.0, 20.0, 80.0])
def test_the_expected_overlap_is_that_of_random_noise(sharpness):
    top, _, _, truth = planted(sharpness=sharpness)
    assert expected_overlap(top, sharpness, 10)[0] == pytest.approx(truth, abs=0.01)
    # A sample of every third row stands for the whole index.
    third = TopScores(top.scores[:, ::3], 3.0)
    assert expected_overlap(third, sharpness, 10)[0] == pytest.approx(truth, abs=0.03)


@pytest.mark.parametrize("sharpness", [5.0, 20.0, 80.0])
def test_the_sharpness_is_found_from_the_pairs_near_the_queries(sharpness):
    top, true, mapped, truth = planted(sharpness=sharpness, pairs=600)
    found = local_overlap(top, true, mapped, k=10, items=3000, seed=0)
    above = (truth - 10 / 3000) / (1 - 10 / 3000)
    assert found.error < 0.25
    assert abs(found.logit - math.log(above / (1 - above))) < 0.15 + 3 * found.error
    assert 20 <= found.window <= 3000


def test_pairs_that_are_too_few_give_no_local_estimate():
    top, true, mapped, _ = planted(queries=3, pairs=12)
    assert local_overlap(top, true, mapped, k=10, items=3000, seed=0) is None
    exact = local_overlap(planted()[0], planted()[2], planted()[2], k=10, items=3000, seed=0)
    assert exact.logit > 6


def test_both_estimates_are_combined_by_their_variances():
    local = LocalOverlap(1.0, 0.1, 40, 1.0)
    center, error = _combined(1.1, 0.03, local)
    assert 1.0 < center < 1.1
    assert error < 0.13
    # An extrapolation that is significantly higher has little weight.
    assert _combined(3.0, 0.03, local)[0] < 1.1
    # One that is lower has little weight if the window holds all true results, else the error grows.
    assert _combined(-1.0, 0.03, local)[0] > 0.9
    center, wide = _combined(-1.0, 0.03, LocalOverlap(1.0, 0.1, 40, 0.8))
    assert -1 < center < 0.5
    assert wide > 0.4
    # A wide window is less certain.
    assert _combined(1.1, 0.03, LocalOverlap(1.0, 0.1, 160, 1.0)) == _combined(1.1, 0.03, local)
    assert _combined(1.1, 0.03, LocalOverlap(1.0, 0.1, 2560, 1.0))[1] > _combined(1.1, 0.03, local)[1]
    # A window that holds few of the true results has little weight.
    assert abs(_combined(0.0, 0.03, LocalOverlap(1.0, 0.1, 40, 0.3))[0]) < 0.05


@pytest.mark.parametrize("clusters", [20, 120])
def test_the_interval_holds_the_truth_in_dense_clusters(clusters):
    """The pairs alone give estimates that are far too high, since a cluster has few rows among the pairs."""
    held = []
    for seed in range(2):
        rng = np.random.default_rng(seed)
        center = 2 * rng.standard_normal((clusters, 40))[rng.integers(0, clusters, 2700)]
        z = center + 0.5 * rng.standard_normal(center.shape)
        old = unit(z @ rng.standard_normal((40, 64)) + 0.5 * rng.standard_normal((2700, 64)))
        new = unit(z @ rng.standard_normal((40, 96)) + 0.5 * rng.standard_normal((2700, 96)))
        pairs = sample(2400, 240, seed)
        for queries in (new[2400:2550], None):
            found = bridge(old[:2400], new[pairs], pairs=pairs, queries=queries, seed=seed)
            truth = overlap(new[2550:], new[:2400], found.apply())
            held.append(found.overlap.low <= truth <= found.overlap.high)
            assert found.overlap.estimate == pytest.approx(truth, abs=0.08)
            assert found.overlap.high - found.overlap.low < 0.25
    assert sum(held) >= 3


def test_rows_without_clusters_keep_a_narrow_interval():
    z = new_rows(items=1700)
    pairs = sample(1500, 240)
    found = bridge(unit(z[:1500] + 0.05), z[pairs], pairs=pairs, queries=z[1500:])
    truth = overlap(z[1500:], z[:1500], found.apply())
    assert found.overlap.low <= truth <= found.overlap.high
    assert found.overlap.high - found.overlap.low < 0.1
