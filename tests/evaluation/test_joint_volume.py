"""Test joint retrieval by volume for well-aligned tuples, whose volumes are close to 0."""

import pytest
import torch

from unialign.batch import make_batch
from unialign.evaluation import joint_retrieval


@pytest.mark.parametrize("distance", [3e-2, 1e-2, 1e-3])
def test_small_volumes_are_ranked(distance: float):
    """Regression test: if five modalities are 3e-3 apart, squared volumes are below 1e-12 and were treated as ties."""
    draw = torch.Generator().manual_seed(0)
    shared = torch.randn(40, 32, generator=draw, dtype=torch.float64)
    noise = torch.randn(5, 40, 32, generator=draw, dtype=torch.float64)
    batch = make_batch({f"m{m}": shared + distance * noise[m] for m in range(5)})
    for query in ("others", "target"):
        found = joint_retrieval(batch, 0, query=query, score="volume", ids_N=torch.arange(40), k=(1,))
        assert found is not None
        assert found[1].recall[1] == 1.0
