"""Test orthonormal bases and volumes of tuples, with absent or linearly dependent vectors.

Shapes: `K` vectors, `N` tuples, `D` dim.
"""

import pytest
import torch
from torch import Tensor

from unialign.functional import orthonormal_rows
from unialign.ops import use_backend


def draw_rows(seed: int, count: int, items: int, dim: int) -> list[Tensor]:
    z = torch.randn(count, items, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return list(torch.nn.functional.normalize(z, dim=-1).unbind(0))


def all_present(rows: list[Tensor]) -> Tensor:
    return torch.ones(len(rows), len(rows[0]), dtype=torch.bool)


def of_span(rows: list[Tensor], present_KN: Tensor) -> Tensor:
    (target_ND,) = draw_rows(9, 1, *rows[0].shape)
    volume_N, basis = orthonormal_rows(rows, present_KN)
    squares = torch.stack([(b * target_ND).sum(-1) ** 2 for b in basis])
    return (volume_N * (1 - squares.sum(0))).sum() + (squares * target_ND[:, 0]).sum()


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_bases_span_the_rows(count: int):
    rows = draw_rows(0, count, 6, 8)
    volume_N, basis = orthonormal_rows(rows, all_present(rows))
    basis_NKD, columns_NDK = torch.stack(basis, 1), torch.stack(rows, -1)
    torch.testing.assert_close(basis_NKD @ basis_NKD.mT, torch.eye(count).double().expand(6, -1, -1))
    torch.testing.assert_close(basis_NKD.mT @ (basis_NKD @ columns_NDK), columns_NDK)
    torch.testing.assert_close(volume_N, torch.linalg.det(columns_NDK.mT @ columns_NDK).sqrt())


@pytest.mark.parametrize("count", [2, 3, 5])
def test_gradients_of_functions_of_the_span(count: int):
    """The closed-form gradient equals automatic differentiation, also with absent vectors."""
    for absent in ([], [0], [1], [0, 1]):
        rows = [z.requires_grad_() for z in draw_rows(1, count, 6, 8)]
        present_KN = all_present(rows)
        present_KN[absent, absent] = False
        gradients = []
        for backend in ("tiled", "reference"):
            masked = [torch.where(there_N[:, None], z, 0.0) for z, there_N in zip(rows, present_KN, strict=True)]
            with use_backend(backend):
                gradients.append(torch.autograd.grad(of_span(masked, present_KN), rows))
        torch.testing.assert_close(*gradients)


def test_absent_vectors_count_as_extra_axes():
    rows = draw_rows(2, 3, 4, 6)
    present_KN = all_present(rows)
    present_KN[1] = False
    masked = [rows[0], torch.zeros_like(rows[1]), rows[2]]
    volume_N, basis = orthonormal_rows(masked, present_KN)
    expected_N, kept = orthonormal_rows([rows[0], rows[2]], present_KN[[0, 2]])
    torch.testing.assert_close(volume_N, expected_N)
    torch.testing.assert_close([basis[0], basis[2]], kept)
    assert (basis[1] == 0).all()


def test_dependent_vectors_have_volume_zero_and_a_finite_gradient():
    a_ND, b_ND = draw_rows(3, 2, 4, 6)
    coplanar_ND = torch.nn.functional.normalize(a_ND + b_ND, dim=-1)
    for rows in ([a_ND, a_ND, b_ND], [a_ND, -a_ND], [a_ND, b_ND, coplanar_ND]):
        leaves = [z.clone().requires_grad_() for z in rows]
        volume_N, basis = orthonormal_rows(leaves, all_present(leaves))
        assert volume_N.max() < 1e-14
        gradients = torch.autograd.grad(volume_N.sum() + sum((b * b_ND).sum() for b in basis), leaves)
        assert all(torch.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("distance", [1e-1, 1e-3, 1e-5])
def test_nearly_equal_vectors_keep_their_precision(distance: float):
    """At distances up to 1e-3, the determinant of the Gram matrix is below 1e-16, the rounding error of its terms."""
    (center_ND,) = draw_rows(4, 1, 5, 16)
    rows = [torch.nn.functional.normalize(center_ND + distance * z, dim=-1) for z in draw_rows(5, 4, 5, 16)]
    volume_N, basis = orthonormal_rows(rows, all_present(rows))
    exact_N = torch.linalg.qr(torch.stack(rows, -1))[1].diagonal(dim1=-2, dim2=-1).prod(-1).abs()
    torch.testing.assert_close(volume_N, exact_N, rtol=1e-15 / distance**2 + 1e-12, atol=0)
    basis_NKD = torch.stack(basis, 1)
    torch.testing.assert_close(basis_NKD @ basis_NKD.mT, torch.eye(4).double().expand(5, -1, -1), rtol=0, atol=1e-9)
