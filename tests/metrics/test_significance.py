"""Test exact p-values, the seed variance, and the error rate under the null hypothesis."""

import math

import numpy as np
import pytest
import torch

from unialign.errors import ConfigError
from unialign.metrics import add_seed_variance, bootstrap_p_value, holm_correction, resample_weights, weighted_mean


def test_bootstrap_p_value_by_hand():
    assert bootstrap_p_value(torch.tensor([0.1, 0.2, 0.3])) == pytest.approx(2 * 1 / 4)
    assert bootstrap_p_value(torch.tensor([-0.1, 0.2, 0.3, math.nan])) == 1.0
    assert bootstrap_p_value(-torch.arange(1, 1000, dtype=torch.float64)) == pytest.approx(2 / 1000)
    assert bootstrap_p_value(torch.zeros(5)) == 1.0
    assert math.isnan(bootstrap_p_value(torch.tensor([math.nan])))


def test_error_rate_under_the_null_is_nominal():
    rng = np.random.default_rng(0)
    weights = resample_weights(60, resamples=400, seed=0)
    draws = torch.from_numpy(rng.standard_t(5, (400, 60)))
    p = np.array([bootstrap_p_value(weighted_mean(difference, weights)) for difference in draws])
    assert 0.02 <= np.mean(p <= 0.05) <= 0.09
    assert 0.42 <= np.mean(p <= 0.5) <= 0.58


def test_seed_variance_is_that_of_the_mean():
    values = torch.tensor([[1.0], [2.0], [3.0]]).double().expand(3, 20000)
    spread = add_seed_variance(values, torch.tensor([1.0, 2.0, 3.0]).double())
    assert float(spread.mean()) == pytest.approx(2.0, abs=0.02)
    assert float(spread.std()) == pytest.approx(1 / 3**0.5, rel=0.03)
    assert torch.equal(add_seed_variance(values[:1], torch.tensor([1.0]).double()), values[0])


def test_holm_by_hand():
    assert holm_correction([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm_correction([0.5, 0.9]) == [1.0, 1.0]
    assert holm_correction([]) == []
    with pytest.raises(ConfigError):
        holm_correction([0.5, float("nan")])


def test_holm_rejects_invalid_p_values():
    with pytest.raises(ConfigError, match="0, 1"):
        holm_correction([0.2, 1.2])
    assert holm_correction([]) == []
