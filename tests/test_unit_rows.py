"""Test that fused row normalization has the value and the derivatives of the plain formula, with less memory."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.saved_bytes import saved_bytes
from unialign import _unit_rows
from unialign.batch import make_batch

MASK = {"b": torch.tensor([True, False, True, True, False])}


def rows(dtype: torch.dtype = torch.float64, *, items: int = 5, dim: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(items, dim, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        for name in "abc"
    }


def plain(embeddings: dict[str, Tensor], present: dict[str, Tensor] | None = None) -> Tensor:
    unit = []
    for name, x in embeddings.items():
        wide = x.double()
        z = wide / wide.square().sum(1, keepdim=True).sqrt()
        unit.append(torch.where(present[name][:, None], z, 0) if present and name in present else z)
    return torch.stack(unit)


def weighed(z: Tensor) -> Tensor:
    weights = torch.linspace(-1, 2, z.numel(), dtype=z.dtype).view_as(z)
    return (weights * z + z**3).sum()


@pytest.mark.parametrize("present", [None, MASK])
@pytest.mark.parametrize("block", [1, 2**18])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-13), (torch.float32, 1e-6), (torch.float16, 2e-3), (torch.bfloat16, 1e-2)],
)
def test_value_and_gradient_are_those_of_the_plain_formula(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, tolerance: float, block: int, present: Any
) -> None:
    monkeypatch.setattr(_unit_rows, "_BLOCK_CPU", block)
    embeddings = rows(dtype)
    expected = plain(embeddings, present)
    found = make_batch(embeddings, present=present).z_MBD
    assert found.dtype == (dtype if dtype.itemsize >= 4 else torch.float32)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-13 if dtype == torch.float64 else 1e-6)
    wanted = torch.autograd.grad(weighed(expected), list(embeddings.values()))
    for gradient, want, x in zip(
        torch.autograd.grad(weighed(found), list(embeddings.values())), wanted, embeddings.values(), strict=True
    ):
        assert gradient.dtype == x.dtype
        torch.testing.assert_close(gradient, want, rtol=tolerance, atol=tolerance)


def test_mixed_precision_gives_each_input_a_gradient_of_its_own_dtype() -> None:
    embeddings = rows()
    halves = {
        "a": embeddings["a"],
        "b": embeddings["b"].detach().half().requires_grad_(),
        "c": embeddings["c"].detach(),
    }
    batch = make_batch(halves)
    torch.testing.assert_close(batch.z_MBD, plain(halves))
    assert batch.z_MBD.dtype == torch.float64
    weighed(batch.z_MBD).backward()
    assert halves["b"].grad is not None
    assert halves["b"].grad.dtype == torch.float16
    assert halves["c"].grad is None


@pytest.mark.parametrize("present", [None, MASK])
def test_first_and_second_derivatives_pass_gradcheck(present: Any) -> None:
    def unit(*values: Tensor) -> Tensor:
        return make_batch(dict(zip("abc", values, strict=True)), present=present).z_MBD

    inputs = tuple(rows().values())
    assert torch.autograd.gradcheck(unit, inputs)
    assert torch.autograd.gradgradcheck(unit, inputs)


def test_a_third_derivative_is_that_of_the_plain_formula() -> None:
    def third(function: Callable[[dict[str, Tensor]], Tensor]) -> Tensor:
        x = rows()
        value = weighed(function(x))
        for _ in range(3):
            (gradient,) = torch.autograd.grad(value, x["a"], create_graph=True)
            value = weighed(gradient)
        return gradient

    torch.testing.assert_close(third(lambda x: make_batch(x).z_MBD), third(plain))


@pytest.mark.parametrize("size", [1e-30, 1e30, 3e38])
def test_the_gradient_of_extreme_rows_is_finite_and_right(size: float) -> None:
    x = torch.tensor([[0.6, -0.8, 0.1], [1.0, 1.0, 1.0]], requires_grad=True)
    scaled = (x.detach() * size).requires_grad_()
    z = make_batch({"z": scaled}, minimum=1).z_MBD
    torch.testing.assert_close(z, plain({"z": x}).float())
    (gradient,) = torch.autograd.grad(weighed(z), scaled)
    (expected,) = torch.autograd.grad(weighed(plain({"z": x})), x)
    # For row lengths above 1e38, gradients are subnormal numbers with few digits.
    torch.testing.assert_close(
        gradient.double() * size, expected.double(), rtol=1e-5, atol=1e-2 if size > 1e38 else 1e-5
    )


def test_absent_rows_pass_no_gradient_even_where_the_gradient_of_their_unit_row_is_nan() -> None:
    embeddings = rows()
    with torch.no_grad():
        embeddings["b"][1] = torch.nan
    z = make_batch(embeddings, present=MASK).z_MBD
    incoming = torch.ones_like(z)
    incoming[1, 1] = torch.nan
    _, gradient, _ = torch.autograd.grad(z, list(embeddings.values()), incoming, retain_graph=True)
    assert (gradient[~MASK["b"]] == 0).all()
    assert torch.isfinite(gradient).all()
    first = torch.autograd.grad(weighed(z), list(embeddings.values()), create_graph=True)
    _, second, _ = torch.autograd.grad(sum(map(weighed, first)), list(embeddings.values()))
    assert (second[~MASK["b"]] == 0).all()
    assert torch.isfinite(second).all()


@pytest.mark.parametrize("present", [None, {"b": torch.arange(512) % 3 > 0}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_only_the_rows_and_a_few_numbers_a_row_are_kept(dtype: torch.dtype, present: Any) -> None:
    embeddings = rows(dtype, items=512, dim=256)
    kept = saved_bytes(lambda: make_batch(embeddings, present=present).z_MBD)
    assert kept <= 3 * 512 * 256 * dtype.itemsize + 3 * 512 * (4 + 4 + 1)


def test_rows_that_are_a_small_part_do_not_hold_the_whole() -> None:
    """Slices, such as one token of each sequence, must not be kept as views, which would keep all tokens in memory."""
    tokens = torch.randn(32, 128, 16, dtype=torch.float64, requires_grad=True)
    hidden = tokens * 2
    pooled = {"a": hidden[:, 0], "b": hidden[:, 1]}
    storages: set[int] = set()

    def note(kept: Tensor) -> Tensor:
        storages.add(kept.untyped_storage().nbytes())
        return kept

    with torch.autograd.graph.saved_tensors_hooks(note, lambda kept: kept):
        z_MBD = make_batch(pooled).z_MBD
    assert max(storages) == z_MBD.nbytes
    (found,) = torch.autograd.grad(weighed(z_MBD), tokens)
    (wanted,) = torch.autograd.grad(weighed(plain({"a": tokens[:, 0] * 2, "b": tokens[:, 1] * 2})), tokens)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-13)


def test_rows_without_gradient_are_not_kept() -> None:
    """Rows of a frozen encoder may be inference tensors, or their buffer may be overwritten before backward."""
    with torch.inference_mode():
        frozen = torch.randn(5, 3)
    buffer, trained = torch.randn(5, 3), torch.randn(5, 3, requires_grad=True)
    z_MBD = make_batch({"a": frozen, "b": buffer, "c": trained}).z_MBD
    wanted = torch.autograd.grad(weighed(plain({"a": frozen.clone(), "b": buffer.clone(), "c": trained})), trained)
    buffer.fill_(7)
    torch.testing.assert_close(torch.autograd.grad(weighed(z_MBD.double()), trained), wanted, rtol=1e-5, atol=1e-6)


def test_rows_that_are_written_over_give_the_right_gradient_or_an_error() -> None:
    """Small float32 batches save unit rows, so the input may be changed in place; other batches raise an error."""
    leaf = torch.randn(5, 3, requires_grad=True)
    (wanted,) = torch.autograd.grad(weighed(make_batch({"a": leaf}, minimum=1).z_MBD), leaf)
    for dtype in (torch.float32, torch.bfloat16):
        x = leaf.to(dtype) * 1
        z_MBD = make_batch({"a": x}, minimum=1).z_MBD
        x.mul_(2)
        if dtype == torch.float32:
            torch.testing.assert_close(torch.autograd.grad(weighed(z_MBD), leaf)[0], wanted)
        else:
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                z_MBD.sum().backward()


class _Allocations(TorchDispatchMode):
    """Record the bytes of the new storages that operations create, without views and in-place results."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[int] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = {t.untyped_storage().data_ptr() for t in (*args, *(kwargs or {}).values()) if isinstance(t, Tensor)}
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.untyped_storage().data_ptr() not in known:
            self.made.append(result.untyped_storage().nbytes())
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_but_the_results_is_as_large_as_the_batch(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    monkeypatch.setattr(_unit_rows, "_BLOCK_CPU", 2**10)
    items, dim = 256, 64
    embeddings = rows(dtype, items=items, dim=dim)
    with _Allocations() as forward:
        z = make_batch(embeddings, present={"b": torch.arange(items) > 5}).z_MBD
    assert sorted(forward.made)[-1] == 3 * items * dim * 4
    assert sorted(forward.made)[-2] <= 2**10 * 4
    incoming = torch.ones_like(z)
    with _Allocations() as backward:
        z.backward(incoming)
    assert sorted(backward.made)[-3:] == [items * dim * dtype.itemsize] * 3
    assert sorted(backward.made)[-4] <= 2**10 * 4
