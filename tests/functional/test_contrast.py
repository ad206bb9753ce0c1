"""The short ways of a contrast, and of Gram matrices, are the long ones: value, gradient, second derivative."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from unialign.functional._contrast import contrast_keys, self_contrast, symmetric_contrast
from unialign.functional._gram import wide_gram

ABSENT = torch.tensor([True, True, False, True, True])
KEPT = {
    "whole": (torch.ones(5, dtype=torch.bool), None),
    "absent": (ABSENT, None),
    "ids": (ABSENT, torch.tensor([0, 1, 2, 0, 3])),
    "different ids": (torch.ones(5, dtype=torch.bool), torch.arange(5)),
}
KEYS = {name: contrast_keys(*kept) for name, kept in KEPT.items()}


def rows(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_every_key_allowed_is_cross_entropy_both_ways(smoothing: float):
    logits_BB, target_B = rows(0, 6, 6), torch.arange(6)
    value = symmetric_contrast(logits_BB, torch.ones(6, 6, dtype=torch.bool), label_smoothing=smoothing)
    expected = sum(cross_entropy(x, target_B, label_smoothing=smoothing) for x in (logits_BB, logits_BB.mT)) / 2
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(torch.autograd.grad(3 * value, logits_BB), torch.autograd.grad(3 * expected, logits_BB))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("keys", KEYS)
def test_second_derivatives_of_a_contrast(keys: str, smoothing: float):
    def value(logits_BB: Tensor) -> Tensor:
        return symmetric_contrast(logits_BB, KEYS[keys], label_smoothing=smoothing)

    assert torch.autograd.gradcheck(value, rows(1, 5, 5))
    assert torch.autograd.gradgradcheck(value, rows(1, 5, 5))


@pytest.mark.parametrize("keys", KEYS)
def test_rows_against_themselves(keys: str):
    z_BD = rows(2, 5, 3)
    value = self_contrast(z_BD, *KEPT[keys], temperature=0.3)
    expected = symmetric_contrast(z_BD @ z_BD.mT / 0.3, KEYS[keys])
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(torch.autograd.grad(2 * value, z_BD), torch.autograd.grad(2 * expected, z_BD))


def test_one_row_has_nothing_to_contrast_with():
    keys_BB = torch.ones(1, 1, dtype=torch.bool)
    assert symmetric_contrast(rows(3, 1, 1), keys_BB, label_smoothing=0.1) == 0
    assert self_contrast(rows(3, 1, 4), keys_BB[0], None, temperature=0.1) == 0


def test_gram_matrices():
    z_MBD = rows(4, 3, 4, 5)
    torch.testing.assert_close(wide_gram(z_MBD), torch.einsum("mbd,nbd->bmn", z_MBD, z_MBD))
    assert torch.autograd.gradcheck(wide_gram, z_MBD)
    assert torch.autograd.gradgradcheck(wide_gram, z_MBD)
    half = z_MBD.detach().float().requires_grad_()
    assert wide_gram(half).dtype == torch.float64
    assert torch.autograd.grad(wide_gram(half).sum(), half)[0].dtype == torch.float32
