"""Test that the cosine of a likely match agrees with isotonic regression, and that its rates hold for new items."""

import math

import numpy as np
import pytest
import torch
from spaces import DIM, checked, healthy, shuffled, unit

from unialign.diagnostics._match import calibrate_match, threshold


def isotonic_probability(true_n, other_q):
    """Fit P(match | cosine) by pool-adjacent-violators, with equal total weight of true and other pairs."""
    value_v = np.concatenate([true_n, other_q])
    order_v = np.argsort(value_v, kind="stable")
    label_v = (np.arange(len(value_v)) < len(true_n))[order_v].astype(float)
    weight_v = np.where(label_v == 1, 1 / len(true_n), 1 / len(other_q))
    pools = []
    for label, weight in zip(label_v, weight_v, strict=True):
        pools.append([label, weight, 1])
        while len(pools) > 1 and pools[-2][0] >= pools[-1][0]:
            label_b, weight_b, count_b = pools.pop()
            label_a, weight_a, count_a = pools.pop()
            total = weight_a + weight_b
            pools.append([(label_a * weight_a + label_b * weight_b) / total, total, count_a + count_b])
    return value_v[order_v], np.concatenate([np.full(count, label) for label, _, count in pools])


def test_the_threshold_is_that_of_an_isotonic_regression():
    rng = np.random.default_rng(0)
    for overlap in (0.2, 1.0, 3.0):
        true_n, other_q = rng.normal(1, overlap, 60), rng.normal(0, overlap, 400)
        for probability in (0.5, 0.8, 0.95):
            found = threshold(true_n, other_q, probability)
            value_v, fitted_v = isotonic_probability(true_n, other_q)
            likely_v = fitted_v >= probability
            if math.isnan(found):
                assert not likely_v.any()
            else:
                np.testing.assert_array_equal(value_v >= found, likely_v)


def test_ties_and_separate_cosines():
    assert threshold(np.array([0.5, 0.5]), np.array([0.1, 0.3]), 0.5) == pytest.approx(0.4)
    assert threshold(np.array([0.2, 0.2, 0.9]), np.array([0.2, 0.1]), 0.6) == pytest.approx(0.55)
    assert math.isnan(threshold(np.array([0.1, 0.1]), np.array([0.1, 0.1]), 0.9))


def test_the_rates_hold_for_new_items():
    found = [
        calibrate_match(*(torch.from_numpy(z).double() for z in space.values()), np.arange(400), seed=0)
        for space in (healthy(("image", "text"), noise=1.2, seed=seed) for seed in (0, 1))
    ]
    for first, other in (found, found[::-1]):
        assert first.true_fraction == pytest.approx(other.true_fraction, abs=0.06)
        assert first.cosine == pytest.approx(other.cosine, abs=0.05)
        assert first.random_fraction < 0.2 < first.true_fraction
        assert first.sure_cosine > first.cosine
    x, y = (torch.from_numpy(z).double() for z in healthy(("image", "text"), noise=1.2, seed=5).values())
    assert float(((x * y).sum(1) >= found[0].cosine).double().mean()) == pytest.approx(found[0].true_fraction, abs=0.06)


def test_positives_are_no_other_pairs():
    """Pairs of rows with the same id are matches and must not be counted as random pairs."""
    rng = np.random.default_rng(0)
    class_n = np.arange(200) % 20
    x = torch.from_numpy(unit(rng.standard_normal((20, DIM)))[class_n]).double()
    assert calibrate_match(x, x, class_n, seed=0).random_fraction == 0.0
    assert calibrate_match(x[:40], x[:40], class_n[:40], seed=0) is None
    assert calibrate_match(x, x, np.zeros(200, np.int64), seed=0) is None


def test_the_diagnosis_states_the_cosine_of_a_likely_match():
    diagnosis = checked(healthy(("image", "text")))
    (finding,) = diagnosis.findings_with("match_cosine")
    match = diagnosis.numbers["pairs"]["image-text"]["match"]
    assert f"{match['cosine']:.3f} for image and text (reached by" in finding.text
    assert "match from" in diagnosis.text()
    assert not checked({name: z for name, z in shuffled().items() if name != "text"}).findings_with("match_cosine")
