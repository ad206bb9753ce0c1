"""Test that the bytes saved for the backward pass are counted once per storage, not per tensor."""

import torch

from benchmarks.saved_bytes import saved_bytes, saved_tensors


def test_a_product_keeps_its_factors():
    x, y = (torch.randn(8, 4, requires_grad=True) for _ in range(2))
    assert saved_bytes(lambda: (x * y).sum()) == 2 * 8 * 4 * 4


def test_views_of_one_storage_count_once():
    x = torch.randn(8, 4, requires_grad=True)
    assert saved_bytes(lambda: (x @ x.mT).sum()) == 8 * 4 * 4
    assert len(saved_tensors(lambda: (x[:4] * x[4:]).sum())) == 1


def test_a_sum_keeps_nothing():
    x = torch.randn(8, 4, requires_grad=True)
    assert saved_bytes(lambda: x.sum()) == 0


def test_intermediate_results_count():
    x = torch.randn(8, 4, requires_grad=True)
    assert saved_bytes(lambda: (2 * x).exp().sum()) == 8 * 4 * 4
