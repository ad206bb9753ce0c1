"""Test the values, verdicts and undefined values of the profile of divergences over bandwidths."""

import pytest
import torch

from unialign.errors import ConfigError, ShapeError
from unialign.geometry import (
    DivergenceWarning,
    divergence_profile,
    effective_neighbors,
    holder_divergence,
    median_bandwidth,
)

ESTIMATORS = ("plugin", "plugin_avg", "pooled", "debiased", "exact")


def draw(modalities, items, dim, seed=0):
    g = torch.Generator().manual_seed(seed)
    return {f"m{m}": torch.randn(items, dim, generator=g, dtype=torch.float64) for m in range(modalities)}


@pytest.mark.filterwarnings("error::unialign.geometry.DivergenceWarning")
def test_every_row_equals_the_functions():
    space = draw(3, 12, 6)
    present = {"m1": torch.arange(12) > 2}
    profile = divergence_profile(space, present=present)
    assert [row.label for row in profile.rows] == ["0.2", "0.5", "1", "median"]
    assert profile.row("median").bandwidth == median_bandwidth(space, present=present)
    for row in profile.rows:
        assert tuple(row.values) == ESTIMATORS
        assert row is profile.row(row.label)
        assert row.neighbors == effective_neighbors(space, bandwidth=row.bandwidth, present=present)
        others = effective_neighbors(space, bandwidth=row.bandwidth, estimator="debiased", present=present)
        assert row.neighbors_debiased == others
    row = profile.row(1.0)
    for estimator, value in row.values.items():
        assert value == float(holder_divergence(space, bandwidth=1.0, estimator=estimator, present=present))


def test_verdicts_follow_the_neighbors():
    rows = divergence_profile(draw(2, 256, 64), bandwidths=(0.02, 0.2, 1.0)).rows
    assert [row.verdict for row in rows] == ["points", "debiased only", "distributions"]
    with pytest.warns(DivergenceWarning):
        holder_divergence(draw(2, 256, 64), bandwidth=0.2)


def test_undefined_values_are_none():
    profile = divergence_profile(draw(2, 1, 4), bandwidths=(0.5,))
    assert profile.rows[0].values["debiased"] is None
    assert profile.rows[0].values["plugin"] is not None
    assert (profile.rows[0].neighbors, profile.rows[0].neighbors_debiased) == (1.0, 0.0)
    assert profile.rows[0].verdict == "points"
    large = divergence_profile(draw(4, 12, 4), bandwidths=("median",), max_bytes=10_000).rows[0]
    assert [name for name, value in large.values.items() if value is None] == ["exact"]


def test_errors():
    space = draw(2, 3, 4)
    for bandwidths in ((), "median", 0.5):
        with pytest.raises(ConfigError, match="bandwidths"):
            divergence_profile(space, bandwidths=bandwidths)
    with pytest.raises(ConfigError, match="bandwidth"):
        divergence_profile(space, bandwidths=(-1.0,))
    with pytest.raises(ConfigError, match=r"no bandwidth 0\.3; expected one of"):
        divergence_profile(space).row(0.3)
    with pytest.raises(ShapeError, match="'m1' has 0"):
        divergence_profile(space, present={"m1": torch.zeros(3, dtype=torch.bool)})
