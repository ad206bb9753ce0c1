"""Test leading eigenvectors of positive semidefinite matrices."""

import pytest
import torch
from torch import Tensor

from unialign.space import _eigenvectors, leading_eigenvectors


def matrix(size: int, rank: int, decay: float) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    axes = torch.linalg.qr(torch.randn(size, rank, generator=generator, dtype=torch.float64))[0]
    return (axes * decay ** torch.arange(rank, dtype=torch.float64)) @ axes.mT


def test_the_krylov_method_equals_the_complete_decomposition(monkeypatch: pytest.MonkeyPatch) -> None:
    x = matrix(400, 400, 0.98)
    expected, axes = leading_eigenvectors(x, most=15)
    monkeypatch.setattr(_eigenvectors, "_LARGE", 100)
    monkeypatch.setattr(_eigenvectors, "_BLOCK", 8)
    monkeypatch.setattr(torch.linalg, "eigh", only_small(torch.linalg.eigh, 200))
    values, vectors = leading_eigenvectors(x, most=15)
    torch.testing.assert_close(values, expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(vectors, axes, rtol=0, atol=1e-5)


def only_small(eigh: object, most: int) -> object:
    def checked(x: Tensor) -> object:
        assert len(x) <= most
        return eigh(x)  # type: ignore[operator]

    return checked


def test_without_convergence_the_decomposition_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    x = matrix(200, 200, 0.9999)
    expected, _ = leading_eigenvectors(x, most=20)
    monkeypatch.setattr(_eigenvectors, "_LARGE", 100)
    monkeypatch.setattr(_eigenvectors, "_BLOCK", 8)
    monkeypatch.setattr(_eigenvectors, "_TOLERANCE", 0.0)
    torch.testing.assert_close(leading_eigenvectors(x, most=20)[0], expected, rtol=0, atol=0)


def test_rounding_errors_are_left_out_and_signs_are_fixed() -> None:
    values, vectors = leading_eigenvectors(matrix(30, 6, 0.5))
    assert values.shape == (6,)
    assert bool((values[:-1] >= values[1:]).all())
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    assert bool((largest > 0).all())
    assert leading_eigenvectors(torch.zeros(4, 4, dtype=torch.float64))[1].shape == (4, 0)
