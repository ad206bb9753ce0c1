"""Compare contrastive losses and Gram matrices with plain formulas: values, gradients and second derivatives."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from unialign.functional._contrast import cosine_contrast, self_contrast
from unialign.functional._float64_gram import float64_gram
from unialign.ops import select_rows, use_backend

ABSENT = torch.tensor([True, True, False, True, True])
KEPT = {
    "whole": select_rows(torch.ones(5, dtype=torch.bool)),
    "absent": select_rows(ABSENT),
    "ids": select_rows(ABSENT, torch.tensor([0, 1, 2, 0, 3])),
    "different ids": select_rows(torch.ones(5, dtype=torch.bool), torch.arange(5)),
}


def rows(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_a_contrast_without_masks_is_symmetric_cross_entropy(smoothing: float):
    x_BD, y_BD, target_B = rows(0, 6, 4), rows(1, 6, 4), torch.arange(6)
    all_rows = select_rows(torch.ones(6, dtype=torch.bool))
    value = cosine_contrast(x_BD, y_BD, all_rows, temperature=0.3, label_smoothing=smoothing)
    logits_BB = x_BD @ y_BD.mT / 0.3
    expected = sum(cross_entropy(x, target_B, label_smoothing=smoothing) for x in (logits_BB, logits_BB.mT)) / 2
    torch.testing.assert_close(value, expected)
    for x in (x_BD, y_BD):
        torch.testing.assert_close(
            torch.autograd.grad(3 * value, x, retain_graph=True),
            torch.autograd.grad(3 * expected, x, retain_graph=True),
        )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kept", KEPT)
def test_derivatives_of_a_contrast(kept: str, smoothing: float):

    def value(x_BD: Tensor, y_BD: Tensor, tau: Tensor) -> Tensor:
        return cosine_contrast(x_BD, y_BD, KEPT[kept], temperature=tau, label_smoothing=smoothing)

    inputs = rows(1, 5, 3), rows(2, 5, 3), torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(value, inputs)
    with use_backend("reference"):
        assert torch.autograd.gradcheck(value, inputs)
        assert torch.autograd.gradgradcheck(value, inputs)


@pytest.mark.parametrize("kept", KEPT)
def test_self_contrast_equals_the_contrast_of_equal_rows(kept: str):
    z_BD = rows(2, 5, 3)
    unit_BD = torch.nn.functional.normalize(z_BD, dim=1)
    value = self_contrast(unit_BD, KEPT[kept], temperature=0.3)
    expected = cosine_contrast(unit_BD, unit_BD, KEPT[kept], temperature=0.3)
    torch.testing.assert_close(value, expected)
    gradients = [torch.autograd.grad(2 * x, z_BD, retain_graph=True)[0] for x in (value, expected)]
    torch.testing.assert_close(*gradients)


def test_the_contrast_of_one_row_is_zero():
    one = select_rows(torch.ones(1, dtype=torch.bool))
    unit_BD = torch.nn.functional.normalize(rows(3, 1, 4), dim=1)
    value = cosine_contrast(unit_BD, unit_BD, one, temperature=0.1, label_smoothing=0.1)
    assert abs(float(value)) < 1e-14
    assert abs(float(self_contrast(unit_BD, one, temperature=0.1))) < 1e-14


def test_gram_matrices():
    z_MBD = rows(4, 3, 4, 5)
    torch.testing.assert_close(float64_gram(z_MBD), torch.einsum("mbd,nbd->bmn", z_MBD, z_MBD))
    assert torch.autograd.gradcheck(float64_gram, z_MBD)
    assert torch.autograd.gradgradcheck(float64_gram, z_MBD)
    half = z_MBD.detach().float().requires_grad_()
    assert float64_gram(half).dtype == torch.float64
    assert torch.autograd.grad(float64_gram(half).sum(), half)[0].dtype == torch.float32
