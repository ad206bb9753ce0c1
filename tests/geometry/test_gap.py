"""Test the raw and the debiased modality gap, and the cosines of true pairs."""

import numpy as np
import pytest
import torch

from unialign.errors import NonFiniteError, ShapeError
from unialign.geometry import modality_gap, modality_gap_debiased, true_pair_cosine, true_pair_cosines
from unialign.metrics import resample_weights


def golden():
    m, i, k = (torch.arange(1, n + 1, dtype=torch.float64) for n in (3, 4, 5))
    m, i, k = m[:, None, None], i[None, :, None], k[None, None, :]
    x = torch.sin(i * k) + 0.5 * torch.sin(3 * m + 2 * i + 5 * k * m)
    return torch.nn.functional.normalize(x, dim=-1)


def unit(n, d, seed, shift=0.0):
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift
    return torch.nn.functional.normalize(x, dim=-1)


def test_golden_values():
    z0, z1, z2 = golden()
    assert float(modality_gap(z0, z1)) == pytest.approx(0.2160283170, abs=1e-9)
    cosines = [float(true_pair_cosine(*pair)) for pair in ((z0, z1), (z0, z2), (z1, z2))]
    assert cosines == pytest.approx([0.870150, 0.790163, 0.774256], abs=1e-6)


def test_debiased_gap_equals_its_definition():
    x, y = unit(30, 6, 0, 0.5), unit(30, 6, 1)
    d = (x - y).numpy()
    wanted = np.sum(d.mean(0) ** 2) - np.trace(np.cov(d.T, ddof=1)) / len(d)
    assert float(modality_gap_debiased(x, y)) == pytest.approx(np.sqrt(wanted), rel=1e-12)
    assert float(modality_gap_debiased(3 * x, 0.1 * y)) == pytest.approx(np.sqrt(wanted), rel=1e-12)


def test_weights_count_items_as_copies():
    x, y = unit(9, 4, 0, 0.5), unit(9, 4, 1)
    weights = resample_weights(9, resamples=5, seed=3)
    d = x - y
    for value, w in zip(modality_gap_debiased(x, y, weights=weights), weights, strict=True):
        rows = torch.arange(9).repeat_interleave(w.long())
        cross = [float(d[i] @ d[j]) for i in rows for j in rows if i != j]
        assert float(value) == pytest.approx(max(0.0, float(np.mean(cross))) ** 0.5, abs=1e-12)
    ones = torch.ones(1, 9)
    torch.testing.assert_close(modality_gap_debiased(x, y, weights=ones)[0], modality_gap_debiased(x, y))


def test_raw_gap_is_sampling_noise_without_a_gap():
    """Without a gap, the raw estimate for 215 items is about sqrt(2 / 215) = 0.096, the debiased estimate near 0."""
    raw, squared = [], []
    for seed in range(60):
        x, y = unit(215, 64, 2 * seed), unit(215, 64, 2 * seed + 1)
        raw.append(float(modality_gap(x, y)))
        d = x - y
        squared.append(float((d.mean(0) ** 2).sum() - d.var(0).sum() / 215))
    assert np.mean(raw) == pytest.approx((2 / 215) ** 0.5, rel=0.05)
    assert abs(np.mean(squared)) < 3 * np.std(squared) / 60**0.5
    x, y = unit(8600, 64, 0, 0.3), unit(8600, 64, 1)
    parts = [modality_gap_debiased(*pair) ** 2 for pair in zip(x.split(215), y.split(215), strict=True)]
    assert float(torch.stack(parts).mean()) == pytest.approx(float(modality_gap_debiased(x, y)) ** 2, rel=0.01)


def test_bootstrap_of_the_debiased_gap_is_centered_on_it():
    x, y = unit(150, 32, 0, 0.1), unit(150, 32, 1)
    values = modality_gap_debiased(x, y, weights=resample_weights(150, resamples=800, seed=0)) ** 2
    estimate = float(modality_gap_debiased(x, y)) ** 2
    assert float(values.mean()) == pytest.approx(estimate, abs=4 * float(values.std()) / 800**0.5)


def test_equal_opposite_and_repeated_rows():
    x, y = unit(5, 3, 0), unit(5, 3, 1)
    torch.testing.assert_close(true_pair_cosines(x, x), torch.ones(5, dtype=torch.float64))
    torch.testing.assert_close(true_pair_cosines(x.float().numpy(), -x), -torch.ones(5, dtype=torch.float64))
    assert float(modality_gap(x, x)) == 0.0
    assert float(modality_gap_debiased(x, x)) == 0.0
    torch.testing.assert_close(modality_gap(x, torch.cat([y, y])), modality_gap(x, y))


def test_errors():
    for call, error, text in [
        (lambda x: modality_gap(x, x[:, :2]), ShapeError, "'x' has dim 3, but 'y' has dim 2"),
        (lambda x: modality_gap(x, x * torch.nan), NonFiniteError, "'y' row 0 holds nan"),
        (lambda x: modality_gap_debiased(x, x[:4]), ShapeError, "5 rows, but 'y' has 4"),
        (lambda x: modality_gap_debiased(x[:1], x[:1]), ShapeError, "at least two"),
        (lambda x: modality_gap_debiased(x, x, weights=torch.ones(5)), ShapeError, r"\(resamples, 5\)"),
        (lambda x: true_pair_cosine(x[:0], x[:0]), ShapeError, r"\(0, 3\)"),
    ]:
        with pytest.raises(error, match=text):
            call(unit(5, 3, 0))
