"""Compare uniformity and InfoNCE from row sums with autograd over whole matrices in float64.

Shapes: `N` rows, `D` dim.
"""

from itertools import product

import pytest
import torch
from torch import Tensor

from unialign.errors import ConfigError
from unialign.ops import _tiles, use_backend
from unialign.ops._backend import rowwise_backend
from unialign.ops._row_selection import select_rows
from unialign.ops._row_sums import mean_excess, rowwise_log_sums


def draw_unit_rows(seed: int, items: int, dim: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(items, dim, generator=generator, dtype=torch.float64)
    return torch.nn.functional.normalize(rows, dim=1)


def masks(case: str, items: int) -> tuple[Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(items)
    present = torch.ones(items, dtype=torch.bool)
    if "absent" in case:
        present = torch.rand(items, generator=generator) < 0.7
    ids = torch.randint(0, max(1, items // 2), (items,), generator=generator) if "ids" in case else None
    return present, ids


def dense_row_sums(z_BD: Tensor, present: Tensor, ids: Tensor | None, rate: float) -> Tensor:
    ids = torch.arange(len(z_BD)) if ids is None else ids
    seen = present[:, None] & present[None] & (ids[:, None] != ids)
    return torch.logsumexp((rate * (z_BD @ z_BD.mT - 1)).masked_fill(~seen, -torch.inf), 1)


CASES = list(product(["all", "absent", "ids", "absent-ids"], [1, 2, 7, 40]))


@pytest.fixture(params=[1, 3, 2**22])
def tile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(_tiles, "TILE", request.param * 40)
    return request.param


@pytest.mark.parametrize(("case", "items"), CASES)
def test_row_sums_and_their_gradient(case, items, tile):
    present, ids = masks(case, items)
    z = draw_unit_rows(1, items, 5).requires_grad_()
    chosen = select_rows(present, ids)
    sums = rowwise_log_sums(chosen.take(z), rate=14.0, selection=chosen, backend="tiled")
    dense = chosen.take(dense_row_sums(z, present, ids, 14.0))
    torch.testing.assert_close(sums, dense, rtol=1e-12, atol=1e-12)
    weights = torch.rand(len(sums), dtype=torch.float64)
    finite = dense.detach() > -torch.inf
    values = [torch.where(finite, s, 0.0) @ weights for s in (sums, dense.masked_fill(~finite, 0.0))]
    got, wanted = (torch.autograd.grad(value, z, allow_unused=True, retain_graph=True)[0] for value in values)
    wanted = torch.zeros_like(z) if wanted is None or not finite.any() else wanted
    torch.testing.assert_close(torch.zeros_like(z) if got is None else got, wanted.nan_to_num(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("case", "items"), CASES)
def test_mean_excess_and_its_gradient(case, items, tile):
    present, ids = masks(case, items)
    x, y = (draw_unit_rows(seed, items, 5).requires_grad_() for seed in (1, 2))
    scale = torch.tensor(9.0, dtype=torch.float64, requires_grad=True)
    chosen = select_rows(present, ids)
    value = mean_excess(chosen.take(x), chosen.take(y), scale, selection=chosen, backend="tiled")
    keys = torch.eye(items, dtype=torch.bool)
    keys = keys | (torch.ones_like(keys) if ids is None else ids[:, None] != ids)
    table = (scale * x @ y.mT).masked_fill(~(keys & present), -torch.inf)
    back = (scale * y @ x.mT).masked_fill(~(keys & present), -torch.inf)
    both = torch.logsumexp(table[present], 1).sum() + torch.logsumexp(back[present], 1).sum()
    own = (scale * x * y).sum(1)[present].sum()
    wanted = (both - 2 * own) / max(1, 2 * int(present.sum()))
    torch.testing.assert_close(value, wanted, rtol=1e-12, atol=1e-12)
    pairs = zip(*(torch.autograd.grad(v, [x, y, scale]) for v in (value, wanted)), strict=True)
    for got, expected in pairs:
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("temperature", [0.05, 0.03])
def test_a_loss_near_zero_is_accurate(temperature: float):
    """Including the positive in a float32 sum would cause an error of 1e-6 in the loss of an aligned batch."""
    x = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(0)))[0]
    y = torch.nn.functional.normalize(x + 1e-3 * torch.randn(12, 12, generator=torch.Generator().manual_seed(1)), dim=1)
    chosen = select_rows(torch.ones(12, dtype=torch.bool), None)
    results = []
    for dtype in (torch.float32, torch.float64):
        leaves = [z.to(dtype).requires_grad_() for z in (x, y)]
        scale = torch.tensor(1 / temperature, dtype=dtype, requires_grad=True)
        value = mean_excess(*leaves, scale, selection=chosen, backend="tiled")
        results.append((value, *torch.autograd.grad(value, [*leaves, scale])))
    assert 0 < results[1][0].item() < 1e-6
    for got, wanted in zip(*results, strict=True):
        torch.testing.assert_close(got.double(), wanted, rtol=1e-4, atol=0.01 * float(wanted.detach().abs().max()))
    torch.testing.assert_close(results[0][0].double(), results[1][0], rtol=1e-4, atol=0)


def test_rows_with_one_id_have_excess_and_gradient_zero():
    x, y = (torch.nn.functional.normalize(torch.randn(5, 4), dim=1).requires_grad_() for _ in range(2))
    chosen = select_rows(torch.ones(5, dtype=torch.bool), torch.zeros(5, dtype=torch.int64))
    scale = torch.tensor(100.0, requires_grad=True)
    value = mean_excess(x, y, scale, selection=chosen, backend="tiled")
    assert value.item() == 0
    for gradient in torch.autograd.grad(value, [x, y, scale]):
        assert not gradient.any()


def test_a_second_derivative_raises():
    z = draw_unit_rows(1, 6, 4).requires_grad_()
    chosen = select_rows(torch.ones(6, dtype=torch.bool), None)
    sums = rowwise_log_sums(z, rate=5.0, selection=chosen, backend="tiled")
    (gradient,) = torch.autograd.grad(sums.sum(), z, create_graph=True)
    with pytest.raises(ConfigError, match="no second derivative"):
        gradient.sum().backward()


def test_unsupported_backends_raise():
    z = torch.ones(3, 4)
    with pytest.raises(ConfigError, match="backend"), use_backend("cuda"):  # type: ignore[arg-type]
        pass
    assert rowwise_backend(z, sharded=False) is None
    with use_backend("compiled"):
        assert rowwise_backend(z, sharded=False) == "compiled"
    with use_backend("tiled"):
        assert rowwise_backend(z, sharded=False) is None
    assert rowwise_backend(z, sharded=False) is None
