"""Compare InfoNCE, configured as published losses, with short torch implementations on unit rows x and y."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import unialign as ua
from loss_cases import draw_batch
from unialign.errors import ConfigError

TAU = 0.2


def unit_pair(items: int = 12) -> tuple[Tensor, Tensor]:
    batch = draw_batch(3, 2, items, 6)
    x, y = (functional.normalize(z) for z in batch.values())
    return x.requires_grad_(), y.requires_grad_()


def assert_equal(total: Tensor, expected: Tensor, leaves: list[Tensor]) -> None:
    torch.testing.assert_close(total, expected, rtol=1e-10, atol=1e-12)
    # The loss normalizes rows, so only the tangential part of the gradient agrees.
    got, wanted = (torch.autograd.grad(value, leaves) for value in (total, expected))
    for leaf, g, w in zip(leaves, got, wanted, strict=True):
        along = w - (w * leaf).sum(-1, keepdim=True) * leaf if leaf.ndim else w
        torch.testing.assert_close(g, along, rtol=1e-8, atol=1e-11)


def test_clip():
    """The loss of Radford et al. (2021) is a symmetric cross-entropy with a learned logit scale."""
    x, y = unit_pair()
    scale = torch.tensor(7.0, dtype=torch.float64, requires_grad=True)
    logits, labels = scale * x @ y.T, torch.arange(len(x))
    expected = (functional.cross_entropy(logits, labels) + functional.cross_entropy(logits.T, labels)) / 2
    assert_equal(ua.losses.InfoNCE()({"x": x, "y": y}, logit_scale=scale).total, expected, [x, y, scale])


def test_siglip():
    """Algorithm 1 of Zhai et al. (2023) is a sigmoid loss with a learned scale and bias."""
    x, y = unit_pair()
    scale, bias = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (5.0, -3.0))
    labels = 2 * torch.eye(len(x)) - 1
    expected = -functional.logsigmoid(labels * (scale * x @ y.T + bias)).sum() / len(x)
    total = ua.losses.Sigmoid()({"x": x, "y": y}, logit_scale=scale, logit_bias=bias).total
    assert_equal(total, expected, [x, y, scale, bias])


def test_moco():
    """Algorithm 1 of He et al. (2020) has one positive per query, and all negatives are in the queue.

    All items have the same id, so the batch contains no negatives.
    """
    x, y = unit_pair()
    queue = ua.losses.MemoryQueue(20)
    queue.push({"y": draw_batch(8, 1, 20, 6)["m0"]}, ids=torch.arange(20) + 1)
    logits = torch.cat([(x * y).sum(1, keepdim=True), x @ queue.stored("y")[0].T], 1) / TAU
    expected = functional.cross_entropy(logits, torch.zeros(len(x), dtype=torch.int64))
    loss = ua.losses.InfoNCE("x", direction="forward", temperature=TAU)
    total = loss({"x": x, "y": y}, ids=torch.zeros(len(x), dtype=torch.int64), queue=queue).total
    assert_equal(total, expected, [x, y])


def test_supervised_contrastive():
    """This is Eq. 2 of Khosla et al. (2020), with queries from one modality and keys from the other."""
    x, y = unit_pair()
    ids = torch.tensor([0, 0, 0, 1, 1, 2, 3, 4, 4, 5, 5, 5])
    mask = (ids[:, None] == ids).double()
    log_probability = functional.log_softmax(x @ y.T / TAU, 1)
    expected = -((mask * log_probability).sum(1) / mask.sum(1)).mean()
    loss = ua.losses.InfoNCE("x", direction="forward", same_ids="positive", temperature=TAU)
    assert_equal(loss({"x": x, "y": y}, ids=ids).total, expected, [x, y])


def test_hard_negatives():
    """This is the code of Robinson et al. (2021) without debiasing (tau_plus = 0), where beta is tau * `hardness`."""
    x, y = unit_pair()
    beta = 0.7
    similarity = torch.exp(x @ y.T / TAU)
    negative = similarity[~torch.eye(len(x), dtype=torch.bool)].view(len(x), -1)
    importance = (beta * negative.log()).exp()
    reweighted = (importance * negative).sum(1) / importance.mean(1)
    expected = -torch.log(similarity.diagonal() / (similarity.diagonal() + reweighted)).mean()
    loss = ua.losses.InfoNCE("x", direction="forward", hardness=beta / TAU, temperature=TAU)
    assert_equal(loss({"x": x, "y": y}).total, expected, [x, y])


def test_hard_negatives_of_each_item():
    """DPR (Karpukhin et al. 2020) has in-batch negatives, and hard negatives for each query."""
    x, y = unit_pair()
    hard = functional.normalize(torch.stack([draw_batch(s, 1, 3, 6)["m0"] for s in range(len(x))]), dim=-1)
    hard.requires_grad_()
    logits = torch.cat([x @ y.T, torch.einsum("bd,bkd->bk", x, hard)], 1) / TAU
    expected = functional.cross_entropy(logits, torch.arange(len(x)), label_smoothing=0.1)
    loss = ua.losses.InfoNCE("x", direction="forward", temperature=TAU, label_smoothing=0.1)
    assert_equal(loss({"x": x, "y": y}, negatives={"y": hard}).total, expected, [x, y, hard])


def test_without_gradient_and_twice():
    """The loss has the same value under `no_grad`, and second derivatives require the reference backend."""
    x, y = unit_pair()
    loss = ua.losses.InfoNCE("x", direction="forward", hardness=1.0)
    total = loss({"x": x, "y": y}).total
    with torch.no_grad():
        assert torch.equal(loss({"x": x, "y": y}).total, total)
    (first,) = torch.autograd.grad(total, x, create_graph=True)
    with pytest.raises(ConfigError, match=r"use_backend\('reference'\)"):
        torch.autograd.grad(first.square().sum(), x)
    with ua.ops.use_backend("reference"):
        (first,) = torch.autograd.grad(loss({"x": x, "y": y}).total, x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), x)
    assert second.isfinite().all()
