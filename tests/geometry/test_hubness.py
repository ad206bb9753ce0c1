"""Compare k-occurrences with those of a brute-force search, and test ties."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

import unialign.geometry._hubness as module
import unialign.ops._search as search_module
from unialign.errors import ConfigError, NonFiniteError, ShapeError
from unialign.geometry import hubness


def draw(rows, dim, seed=0, shift=0.0):
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


@given(
    queries=st.integers(1, 12),
    gallery=st.integers(3, 12),
    k=st.integers(1, 3),
    seed=st.integers(0, 99),
    side=st.sampled_from([1, 5, 512]),
    spare=st.sampled_from([0, 1, 8]),
)
def test_counts_equal_sorting(queries, gallery, k, seed, side, spare):
    x, y = draw(queries, 4, seed), draw(gallery, 4, seed + 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search_module, "SIDE", side)
        patch.setattr(module, "_SPARE", spare)
        result = hubness(x, y, k=k)
    cosines = torch.nn.functional.normalize(x) @ torch.nn.functional.normalize(y).T
    counts = np.zeros(gallery)
    for row in cosines.numpy():
        counts[np.argsort(-row)[:k]] += 1
    np.testing.assert_allclose(result.counts, counts, atol=1e-12)
    assert result.largest == counts.max()
    assert counts[result.largest_row] == counts.max()
    assert result.antihub_fraction == pytest.approx(np.mean(counts == 0))
    spread = counts.std()
    skewness = np.mean((counts - counts.mean()) ** 3) / spread**3 if spread > 0 else 0.0
    assert result.skewness == pytest.approx(skewness, abs=1e-9)


def test_equal_rows_share_counts():
    """Breaking ties by index would give k hubs in a collapsed gallery and depend on the order of rows."""
    collapsed = hubness(draw(20, 4), torch.ones(30, 4), k=3)
    assert collapsed.counts.tolist() == pytest.approx([2.0] * 30)
    assert (collapsed.skewness, collapsed.antihub_fraction) == (0.0, 0.0)
    twice = draw(8, 4, 1).repeat(2, 1)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    straight, moved = hubness(draw(20, 4), twice, k=3), hubness(draw(20, 4), twice[order], k=3)
    torch.testing.assert_close(moved.counts, straight.counts[order])
    torch.testing.assert_close(straight.counts[:8], straight.counts[8:])
    assert float(straight.counts.sum()) == pytest.approx(60)


@given(
    rows=st.integers(2, 20),
    k=st.integers(1, 5),
    spare=st.sampled_from([0, 1, 8]),
    seed=st.integers(0, 99),
)
def test_ties_are_shared_by_definition(rows, k, spare, seed):
    """Ties are shared equally, even if they extend beyond the retrieved candidates."""
    x, y = torch.sign(draw(rows, 2, seed)), torch.sign(draw(rows, 2, seed + 1))
    k = min(k, rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_SPARE", spare)
        result = hubness(x, y, k=k)
    counts = np.zeros(rows)
    for row in (x @ y.T / 2).numpy():
        last = np.sort(row)[-k]
        above, tied = row > last + 0.1, abs(row - last) < 0.1
        counts += above + (k - above.sum()) / tied.sum() * tied
    np.testing.assert_allclose(result.counts, counts, atol=1e-12)


def test_high_dimensional_spaces_with_an_offset_have_hubs():
    """In 128 dimensions, gallery rows near the mean of all queries are hubs; in 3 dimensions there are none."""
    flat = hubness(draw(800, 3), draw(800, 3, 1))
    assert flat.skewness < 3 * flat.chance_skewness
    nearness = torch.rand(800, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    hubs = hubness(draw(800, 128, 3) + 1, draw(800, 128, 4) + nearness)
    assert hubs.skewness > 5 * hubs.chance_skewness
    assert hubs.antihub_fraction > 0.5 > hubs.chance_antihub_fraction
    assert hubs.largest > 100


def test_chance_values_are_those_of_a_binomial_count():
    g = np.random.default_rng(0)
    result = hubness(draw(400, 8), draw(50, 8, 1), k=2)
    picks = np.stack([g.binomial(400, 2 / 50, 200_000)])
    assert result.chance_skewness == pytest.approx(float(np.mean((picks - 16) ** 3) / picks.std() ** 3), abs=0.02)
    assert result.chance_antihub_fraction == pytest.approx(0.96**400)
    assert hubness(draw(3, 4), draw(2, 4), k=2).chance_skewness == 0.0


def test_errors():
    for options, error, text in [
        ({"k": 0}, ConfigError, "k must be an integer of at least 1"),
        ({"k": 4}, ConfigError, "k is 4, but the gallery has only 3 rows"),
        ({"k": 1, "gallery": torch.eye(4)}, ShapeError, "'queries' have dim 3, 'gallery' has dim 4"),
        ({"k": 1, "gallery": torch.full((2, 3), math.nan)}, NonFiniteError, "'gallery' row 0 holds nan"),
    ]:
        with pytest.raises(error, match=text):
            hubness(torch.eye(3), options.pop("gallery", torch.eye(3)), **options)
