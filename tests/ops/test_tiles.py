"""Compare tiled reductions with whole matrices and autograd, for tiles of any size.

Shapes: `N` rows, `D` dim.
"""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.saved_bytes import saved_bytes
from unialign.errors import ConfigError
from unialign.ops import use_backend
from unialign.ops._contrast import mean_contrast
from unialign.ops._density import log_row_sums_between
from unialign.ops._kernel_functions import KernelFunction
from unialign.ops._logits import CosineLogits, KernelLogits, TupleCosineLogits
from unialign.ops._row_selection import RowSelection, select_rows
from unialign.ops._softplus import softplus_total
from unialign.ops._tuple_logits import AreaLogits, VolumeLogits
from unialign.ops._uniformity import log_row_sums, log_total

ITEMS, DIM = 13, 5
SIDES = [1, 2, 5, ITEMS, ITEMS + 1]
IDS = torch.tensor([3, 1, 3, 3, 0, 7, 8, 9, 1, 10, 11, 12, 13])
KERNELS = {
    "clip": KernelFunction("clip", 0.07),
    "cold": KernelFunction("clip", 0.005),
    "hot": KernelFunction("clip", 100.0),
    "gaussian": KernelFunction("gaussian", 0.07),
    "wang_isola": KernelFunction("wang_isola", 1.0),
    "geodesic": KernelFunction("geodesic", 0.5),
    "cold geodesic": KernelFunction("geodesic", 0.1),
}

Kernel = Callable[..., Tensor]


def unit(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def all_rows(ids: Tensor | None = None, items: int = ITEMS) -> RowSelection:
    return select_rows(torch.ones(items, dtype=torch.bool), ids)


def check(kernel: Kernel, inputs: list[Tensor], *, rtol: float = 1e-9) -> None:
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    value = kernel(*leaves)
    with use_backend("reference"):
        expected = kernel(*leaves)
    # The log sum of a row without pairs is -inf in both results.
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    finite = torch.isfinite(expected.detach())
    weight = torch.rand(value.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    wanted = torch.autograd.grad((torch.where(finite, expected, 0.0) * weight).sum(), leaves, allow_unused=True)
    for _ in range(2):
        got = torch.autograd.grad((torch.where(finite, value, 0.0) * weight).sum(), leaves, retain_graph=True)
        for g, w in zip(got, wanted, strict=True):
            scale = float(w.abs().max()) if w is not None else 0.0
            w = torch.zeros_like(g) if w is None else w
            torch.testing.assert_close(g, w, rtol=rtol, atol=1e-11 * (scale + 1e-3))


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("ids", [None, IDS, torch.zeros(ITEMS, dtype=torch.int64)], ids=["different", "ids", "one id"])
@pytest.mark.parametrize("name", KERNELS)
def test_row_sums(name: str, ids: Tensor | None, side: int):
    chosen = all_rows(ids)
    for self_pairs in ("excluded", "included"):
        options = {"kernel": KERNELS[name], "selection": chosen, "self_pairs": self_pairs, "side": side}
        check(partial(log_row_sums, **options), [chosen.take(unit(0, ITEMS, DIM))])


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("ids", [None, IDS], ids=["different", "ids"])
@pytest.mark.parametrize("name", KERNELS)
def test_totals(name: str, ids: Tensor | None, side: int):
    chosen = all_rows(ids)
    for weights in (None, torch.rand(ITEMS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)):
        options = {"kernel": KERNELS[name], "selection": chosen, "weights_N": weights, "side": side}
        check(partial(log_total, **options), [chosen.take(unit(0, ITEMS, DIM))])


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", KERNELS)
def test_row_sums_between_two_sets(name: str, side: int):
    x, y = unit(0, ITEMS, DIM), unit(1, 7, DIM)
    for codes in (None, (torch.arange(ITEMS) % 8, torch.arange(7))):
        check(partial(log_row_sums_between, kernel=KERNELS[name], codes=codes, side=side), [x, y])


def contrast_of(make: Callable[..., object], chosen: RowSelection, side: int, **options: object) -> Kernel:
    def kernel(own: Tensor, *tensors: Tensor) -> Tensor:
        return mean_contrast(make, tensors, own, selection=chosen, side=side, **options)

    return kernel


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("ids", [None, IDS, torch.zeros(ITEMS, dtype=torch.int64)], ids=["different", "ids", "one id"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_contrasts_of_cosines(smoothing: float, ids: Tensor | None, side: int):
    chosen = all_rows(ids)
    x, y = unit(0, ITEMS, DIM), unit(1, ITEMS, DIM)
    for scale in (0.01, 14.0, 200.0):
        own = (x * y).sum(-1) * scale
        for options in ({}, {"symmetric": False}, {"positive_weight": 0.0}):
            kernel = contrast_of(CosineLogits, chosen, side, label_smoothing=smoothing, **options)
            check(kernel, [own, x, y, number(scale)])


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", KERNELS)
def test_contrasts_of_kernels(name: str, side: int):
    x, y = unit(0, ITEMS, DIM), unit(1, ITEMS, DIM)
    make = partial(KernelLogits, kernel=KERNELS[name])
    own = KERNELS[name].log((x * y).sum(-1))
    check(contrast_of(make, all_rows(IDS), side, positive_weight=0.0), [own, x, y])


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("others", [1, 2, 3])
def test_contrasts_of_volumes(others: int, side: int):
    anchor, *rows = (unit(seed, ITEMS, DIM) for seed in range(others + 1))
    basis = [0.7 * x for x in rows]  # not orthonormal, so that some squared sines are negative
    generator = torch.Generator().manual_seed(5)
    volume = torch.rand(ITEMS, generator=generator, dtype=torch.float64)
    own = -5 * torch.rand(ITEMS, generator=generator, dtype=torch.float64)
    for scale in (5.0, 90.0):
        for eps in (0.0, 1e-4):
            kernel = contrast_of(partial(VolumeLogits, eps=eps), all_rows(IDS), side, label_smoothing=0.1)
            check(kernel, [own, volume, number(scale), anchor, *basis])


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("form", ["area", "squared"])
def test_contrasts_of_areas(form: str, side: int):
    t, v, a = (unit(seed, ITEMS, DIM) for seed in range(3))
    c, w = (v + a) / 2, v - a
    own = -5 * torch.rand(ITEMS, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    for scale in (5.0, 90.0):
        kernel = contrast_of(partial(AreaLogits, form=form, eps=1e-4), all_rows(IDS), side, label_smoothing=0.1)
        check(kernel, [own, number(scale), t, c, w, 1 + (c * c).sum(-1), (c * w).sum(-1), (w * w).sum(-1)])


@pytest.mark.parametrize("side", SIDES)
def test_contrasts_with_keys_of_several_items(side: int):
    x, y = unit(0, ITEMS, DIM), unit(1, ITEMS, DIM)
    codes = torch.stack([IDS.roll(1), IDS])
    make = partial(TupleCosineLogits, codes_N=IDS, key_codes_KN=codes)
    check(contrast_of(make, all_rows(), side, symmetric=False), [(x * y).sum(-1) * 7, x, y, number(7.0)])


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("ids", [None, IDS], ids=["different", "ids"])
def test_softplus_totals(ids: Tensor | None, side: int):
    chosen = all_rows(ids)
    inputs = [unit(0, ITEMS, DIM), unit(1, ITEMS, DIM), number(10.0), number(-3.0)]
    check(partial(softplus_total, selection=chosen, side=side), inputs)


class Largest(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else [out]:
            if isinstance(x, Tensor):
                self.numel = max(self.numel, x.numel())
        return out


def big_kernels(items: int, dim: int) -> dict[str, tuple[Kernel, list[Tensor]]]:
    chosen = all_rows(items=items)
    x, y, w = (unit(seed, items, dim).float() for seed in range(3))
    ones = torch.ones(items)
    scale = torch.tensor(10.0)
    options = {"kernel": KernelFunction("clip", 0.07), "selection": chosen, "side": 64}
    return {
        "row sums": (partial(log_row_sums, **options), [x]),
        "total": (partial(log_total, **options), [x]),
        "between": (partial(log_row_sums_between, kernel=KernelFunction("clip", 0.07), side=64), [x, y]),
        "cosines": (contrast_of(CosineLogits, chosen, 64), [ones, x, y, scale]),
        "volumes": (
            contrast_of(partial(VolumeLogits, eps=1e-4), chosen, 64),
            [-ones, ones, scale, x, 0.7 * y, 0.7 * w],
        ),
        "areas": (
            contrast_of(partial(AreaLogits, form="area", eps=1e-4), chosen, 64),
            [-ones, scale, x, y, y - w, 1 + ones, (y * (y - w)).sum(-1), ((y - w) ** 2).sum(-1)],
        ),
        "softplus": (partial(softplus_total, selection=chosen, side=64), [x, y, scale, -scale]),
    }


@pytest.mark.parametrize("name", big_kernels(4, 2))
def test_memory_grows_linearly_with_rows(name: str):
    kept = []
    for items in (256, 512, 1024):
        kernel, inputs = big_kernels(items, 8)[name]
        leaves = [x.clone().requires_grad_() for x in inputs]
        with Largest() as largest:
            kernel(*leaves).sum().backward()
        assert largest.numel <= max(64 * 64, 8 * items)
        kept.append(saved_bytes(lambda kernel=kernel, leaves=leaves: kernel(*leaves).sum()))
    assert kept[2] <= 2.1 * kept[1] <= 4.4 * kept[0]


@pytest.mark.parametrize("name", big_kernels(4, 2))
def test_second_derivatives_raise(name: str):
    kernel, inputs = big_kernels(8, 4)[name]
    leaves = [x.clone().requires_grad_() for x in inputs]
    gradients = torch.autograd.grad(kernel(*leaves).sum(), leaves, create_graph=True)
    with pytest.raises(ConfigError, match="no second derivative"):
        sum(g.sum() for g in gradients).backward()


@pytest.mark.parametrize("name", big_kernels(4, 2))
def test_float32_agrees_with_float64(name: str):
    kernel, inputs = big_kernels(300, 16)[name]
    results = []
    for dtype in (torch.float32, torch.float64):
        leaves = [x.to(dtype).requires_grad_() for x in inputs]
        value = kernel(*leaves).sum()
        results.append((value.item(), [g.double() for g in torch.autograd.grad(value, leaves)]))
    (value, gradients), (exact, exact_gradients) = results
    assert value == pytest.approx(exact, rel=1e-6)
    for g, e in zip(gradients, exact_gradients, strict=True):
        assert float((g - e).norm()) <= 1e-5 * float(e.norm()) + 1e-9
