"""Test bootstrap weights, their independence of block sizes, and the coverage of intervals."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

import unialign.metrics._bootstrap as module
from unialign.errors import ConfigError, ShapeError
from unialign.metrics import Interval, percentile_interval, resample_weights, weighted_mean
from unialign.metrics._bootstrap import weighted_median

RESAMPLES = 1000


def test_resamples_have_the_size_of_the_data():
    weights = resample_weights(50, resamples=200, seed=0)
    assert weights.shape == (200, 50)
    assert (weights.sum(1) == 50).all()
    assert weights.mean() == 1.0
    assert float(weights.var()) == pytest.approx(1 - 1 / 50, rel=0.05)


def test_items_of_a_group_are_drawn_together():
    groups = np.array(["b", "a", "b", "c", "a", "b"])
    weights = resample_weights(groups, resamples=100, seed=1)
    assert torch.equal(weights[:, 0], weights[:, 2])
    assert torch.equal(weights[:, 1], weights[:, 4])
    assert (weights[:, [0, 1, 3]].sum(1) == 3).all()
    assert torch.equal(weights, resample_weights(torch.tensor([7, 3, 7, 9, 3, 7]), resamples=100, seed=1))
    assert not torch.equal(weights, resample_weights(groups, resamples=100, seed=2))


def test_block_size_does_not_matter(monkeypatch):
    whole = resample_weights(30, resamples=25, seed=0)
    monkeypatch.setattr(module, "_BLOCK", 100)
    assert torch.equal(resample_weights(30, resamples=25, seed=0), whole)
    assert torch.equal(resample_weights(np.arange(30), resamples=25, seed=0), whole)


@settings(max_examples=40, deadline=None)
@given(
    scores=st.lists(st.one_of(st.floats(-5, 5), st.just(float("nan"))), min_size=1, max_size=12),
    seed=st.integers(0, 99),
)
def test_weighted_statistics_count_items_as_copies(scores, seed):
    values = torch.tensor(scores, dtype=torch.float64)
    weights = resample_weights(len(scores), resamples=4, seed=seed)
    if values.isnan().all():
        assert weighted_mean(values, weights).isnan().all()
        return
    for w, mean, median in zip(weights, weighted_mean(values, weights), weighted_median(values, weights), strict=True):
        copies = np.repeat(values.numpy(), w.int().numpy())
        copies = copies[~np.isnan(copies)]
        if len(copies):
            assert float(mean) == pytest.approx(copies.mean(), abs=1e-9)
            assert float(median) == pytest.approx(np.median(copies), abs=1e-9)
        else:
            assert mean.isnan()


@pytest.mark.parametrize("kind", ["hits", "skewed", "groups"])
def test_intervals_cover_the_truth(kind):
    """Of 1,000 intervals at level 95 %, between 93 and 97 % contain the true mean."""
    rng = np.random.default_rng(0)
    studies, items = 1000, 240
    if kind == "hits":
        truth, scores, groups = 0.3, rng.random((studies, items)) < 0.3, items
    elif kind == "skewed":
        truth, scores, groups = 1.0, rng.exponential(size=(studies, items)), items
    else:
        luck = rng.standard_normal((studies, 120)).repeat(2, axis=1)
        truth, scores, groups = 0.0, luck + 0.2 * rng.standard_normal((studies, items)), np.arange(120).repeat(2)
    # All studies share the resampling weights, since coverage is measured over draws of the data.
    weights = resample_weights(groups, resamples=RESAMPLES, seed=0)
    table = torch.from_numpy(scores.astype(float))
    covered = np.mean([truth in percentile_interval(weighted_mean(row, weights)) for row in table])
    assert 0.93 <= covered <= 0.97
    if kind == "groups":
        alone = resample_weights(items, resamples=RESAMPLES, seed=0)
        assert np.mean([truth in percentile_interval(weighted_mean(row, alone)) for row in table]) < 0.9


def test_percentile_interval():
    values = torch.arange(101.0)
    assert percentile_interval(values, 0.9) == Interval(50.0, pytest.approx(5.0), pytest.approx(95.0))
    interval = percentile_interval(torch.cat([values, torch.tensor([torch.nan])]), 0.5, estimate=49.0)
    assert tuple(interval) == (25.0, 75.0)
    assert interval.estimate == 49.0
    assert 30 in interval
    assert 80 not in interval


def test_errors():
    for call, error in [
        (lambda: resample_weights(0), ShapeError),
        (lambda: resample_weights(5, resamples=0), ConfigError),
        (lambda: resample_weights(torch.ones(3)), ShapeError),
        (lambda: percentile_interval(torch.ones(3), 1.5), ConfigError),
        (lambda: percentile_interval(torch.full((3,), torch.nan)), ShapeError),
    ]:
        with pytest.raises(error):
            call()
