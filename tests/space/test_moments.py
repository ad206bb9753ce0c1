"""Test that input statistics computed in blocks equal those of the whole array in float64."""

import numpy as np
import pytest
import torch

from unialign.space import _moments


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_blocks_give_the_statistics_of_the_whole(monkeypatch: pytest.MonkeyPatch, dtype: type) -> None:
    monkeypatch.setattr(_moments, "_BLOCK", 40)
    monkeypatch.setattr(_moments, "_COVARIANCE_ROWS", 13)
    rng = np.random.default_rng(0)
    # One column has a mean far above its standard deviation, and one has a drift over the rows.
    x = (rng.normal(size=(101, 5)) * [1, 1e-2, 1, 3, 0] + [0, 100, 1e3, 0, 8]).astype(dtype)
    x[:, 3] += np.arange(101).astype(dtype)
    rows = np.flatnonzero(np.arange(101) % 3 != 1)
    used = x[rows].astype(np.float64)
    mean, squares = _moments.column_moments(x, rows)
    np.testing.assert_allclose(mean, used.mean(0), rtol=1e-13)
    np.testing.assert_allclose(squares, ((used - used.mean(0)) ** 2).sum(0), rtol=1e-12, atol=1e-25)
    mean, covariance = _moments.column_covariance(x, rows)
    np.testing.assert_allclose(mean, used.mean(0), rtol=1e-13)
    expected = np.cov(used.T, bias=True)
    np.testing.assert_allclose(covariance, expected, rtol=1e-12, atol=1e-13 * np.abs(expected).max())
    axes, scale = torch.eye(5, 2, dtype=torch.float64), torch.tensor([1.0, 2.0], dtype=torch.float64)
    length = _moments.row_lengths_mean(x, rows, mean, axes, scale)
    assert length == pytest.approx(np.linalg.norm((used - used.mean(0))[:, :2] / [1, 2], axis=1).mean())


def test_a_row_that_is_not_finite_shows_in_the_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_moments, "_BLOCK", 8)
    for bad in (np.inf, -np.inf, np.nan):
        x = np.ones((9, 2), dtype=np.float32)
        x[4, 1] = bad
        mean, squares = _moments.column_moments(x, np.arange(9))
        assert torch.isfinite(mean).tolist() == [True, False] or torch.isfinite(squares).tolist() == [True, False]
        assert not bool(torch.isfinite(_moments.column_covariance(x, np.arange(9))[1]).all())
