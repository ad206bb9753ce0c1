"""Test the effective rank, which is the exponential of the entropy of the covariance eigenvalues."""

import numpy as np
import pytest
import torch

from unialign.geometry import effective_rank


def test_equals_the_definition():
    x = torch.randn(50, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * torch.arange(1, 8)
    unit = torch.nn.functional.normalize(x).numpy()
    share = np.linalg.eigvalsh(np.cov(unit.T))
    share = share / share.sum()
    assert float(effective_rank(x)) == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-10)
    assert float(effective_rank(x[:4])) <= 3 + 1e-9


@pytest.mark.parametrize("dim", [2, 5, 16])
def test_isotropic_rows_use_every_direction(dim):
    eye = torch.eye(dim)
    assert float(effective_rank(torch.cat([eye, -eye]))) == pytest.approx(dim)


def test_one_direction_and_one_point_are_one():
    line = torch.tensor([[1.0, 2.0, 3.0]])
    assert float(effective_rank(torch.cat([line, -line, 5 * line]))) == pytest.approx(1.0)
    assert float(effective_rank(line.repeat(9, 1))) == 1.0
    assert float(effective_rank(line * torch.rand(9, 1, generator=torch.Generator().manual_seed(0)))) == 1.0
