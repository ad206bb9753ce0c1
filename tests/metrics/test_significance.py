"""Paired comparison: exact small cases, nominal error under the null, power under an effect."""

import itertools

import numpy as np
import pytest
import torch

from unialign.errors import ConfigError, DataError, ShapeError
from unialign.metrics import compare_paired, holm, sign_flip_p_value


def test_sign_flip_approaches_the_exact_test():
    differences = np.array([0.3, -0.1, 0.4, 0.2, 0.25, -0.05, 0.1, 0.3])
    observed = abs(differences.sum())
    flips = [abs(np.dot(s, differences)) >= observed - 1e-12 for s in itertools.product([1, -1], repeat=8)]
    assert sign_flip_p_value(differences, permutations=20000) == pytest.approx(np.mean(flips), abs=0.005)


def test_a_group_counts_once():
    """Ten copies of the same five items are no more evidence than the five."""
    differences = np.array([0.3, 0.1, 0.4, 0.2, 0.25])
    copies = sign_flip_p_value(differences.repeat(10), groups=np.arange(5).repeat(10), permutations=4999)
    assert copies == sign_flip_p_value(differences, permutations=4999)
    assert copies == pytest.approx(2 / 32, abs=0.01)
    assert sign_flip_p_value(differences.repeat(10), permutations=4999) == 1 / 5000


def test_error_rate_under_the_null_is_nominal():
    """1,000 comparisons of equals: p below 0.05 in about 5 % of them."""
    rng = np.random.default_rng(0)
    draws = rng.standard_t(3, (1000, 60)) - rng.standard_t(3, (1000, 60))
    p = np.array([sign_flip_p_value(difference, permutations=199) for difference in draws])
    assert 0.035 <= np.mean(p <= 0.05) <= 0.065
    assert 0.45 <= np.mean(p <= 0.5) <= 0.55


def test_error_rate_of_hits_is_at_most_nominal():
    """Hits tie often, and a tie with the data counts as extreme."""
    rng = np.random.default_rng(1)
    hits = [1.0 * (rng.random(60) < 0.4) - (rng.random(60) < 0.4) for _ in range(500)]
    p = np.array([sign_flip_p_value(difference, permutations=199) for difference in hits])
    assert 0.005 <= np.mean(p <= 0.05) <= 0.06


@pytest.mark.parametrize("kind", ["paired", "independent"])
def test_interval_covers_a_difference_over_seeds_and_items(kind):
    """Ten seeds show nine tenths of the variance between seeds, so a little under 95 % is due."""
    rng = np.random.default_rng(1)
    covered = []
    for study in range(300):
        gain = 0.3 + 0.3 * rng.standard_normal(80) + 0.1 * rng.standard_normal((10, 1))
        item, run_a, run_b = rng.standard_normal(80), *0.1 * rng.standard_normal((2, 10, 1))
        noise_a, noise_b = 0.05 * rng.standard_normal((2, 10, 80))
        b = item + (run_a if kind == "paired" else run_b) + noise_b
        result = compare_paired(item + run_a + gain + noise_a, b, seeds=kind, resamples=300, permutations=1, seed=study)
        covered.append(0.3 in result.difference)
    assert 0.90 <= np.mean(covered) <= 0.98


def test_interval_is_wide_rather_than_narrow_where_all_is_luck_of_single_items():
    rng = np.random.default_rng(2)
    tables = rng.standard_normal((200, 2, 5, 60))
    covered = [0.0 in compare_paired(a, b, resamples=300, permutations=1).difference for a, b in tables]
    assert np.mean(covered) >= 0.97


def test_a_real_difference_is_found_and_signed():
    rng = np.random.default_rng(2)
    item = rng.random(200)
    a, b = item + 0.1 + 0.2 * rng.standard_normal((3, 200)), item + 0.2 * rng.standard_normal((3, 200))
    result = compare_paired(torch.from_numpy(a), b, groups=np.arange(200) // 2)
    assert result.difference.low > 0
    assert result.difference.estimate == pytest.approx(float((a - b).mean()))
    assert result.p_value < 0.01
    assert (result.items, result.groups) == (200, 100)
    mirrored = compare_paired(b, a, groups=np.arange(200) // 2)
    assert mirrored.difference.high == pytest.approx(-result.difference.low)
    assert mirrored.p_value == result.p_value
    assert compare_paired(a, b) == compare_paired(a, b)


def test_common_spread_of_items_cancels():
    item = np.random.default_rng(3).standard_normal(50) * 100
    result = compare_paired(item + 1, item)
    assert tuple(result.difference) == pytest.approx((1.0, 1.0))
    assert compare_paired(item, item).p_value == 1.0


def test_undefined_items_are_left_out_of_both_sides():
    a, b = np.arange(6.0), np.zeros((2, 6))
    b[1, 2] = np.nan
    result = compare_paired(a, b, seeds="independent")
    assert result.items == 5
    assert result.difference.estimate == pytest.approx(13 / 5)
    with pytest.raises(DataError, match="no item"):
        compare_paired(a * np.nan, a)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
    with pytest.raises(ConfigError):
        holm([0.5, float("nan")])


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda x: compare_paired(x, x[:, :3]), ShapeError, "same items"),
        (lambda x: compare_paired(x, x[:1]), ShapeError, "independent"),
        (lambda x: compare_paired(x, x, seeds="random"), ConfigError, "'random'"),
        (lambda x: compare_paired(x, x, groups=[1, 2]), ShapeError, r"\(5,\)"),
        (lambda x: compare_paired(x[None], x), ShapeError, r"\(1, 2, 5\)"),
        (lambda x: compare_paired(x, x, permutations=0), ConfigError, "permutations"),
        (lambda x: sign_flip_p_value(x), ShapeError, r"\(2, 5\)"),
    ],
)
def test_refusals(call, error, text):
    with pytest.raises(error, match=text):
        call(np.ones((2, 5)))
