"""Losses inside activation checkpointing, `torch.compile`, a second derivative and a notebook."""

from typing import Any

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from unialign.errors import ConfigError
from unialign.losses import create, names

NEED = {name: {} if name in ("pmrl", "symile") else {"anchor": "a"} for name in names()}


def rows() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {name: torch.randn(8, 4, generator=generator).requires_grad_() for name in "abc"}


@pytest.mark.parametrize("name", names())
def test_inside_activation_checkpointing(name: str) -> None:
    """Checkpointing runs the loss twice and allows each saved tensor to be read only once."""
    x = rows()
    create(name, **NEED[name])(x).total.backward()
    wanted = {key: z.grad for key, z in x.items()}
    x, objective = rows(), create(name, **NEED[name]).eval()  # in training mode Symile draws new negatives in each call

    def total(a: torch.Tensor) -> torch.Tensor:
        return objective(x | {"a": a}).total

    checkpoint(total, x["a"], use_reentrant=False).backward()
    for key, z in x.items():
        torch.testing.assert_close(z.grad, wanted[key])


@pytest.mark.parametrize("name", names())
def test_a_second_derivative_raises(name: str) -> None:
    """If only some inputs require gradients, autograd may prune the node that raises the error."""
    x = {key: z.detach().double().requires_grad_() for key, z in rows().items()}
    objective = create(name, **NEED[name])
    (g,) = torch.autograd.grad(objective(x).total, x["a"], create_graph=True)
    with pytest.raises(ConfigError, match=r"second derivative|first derivatives only"):
        torch.autograd.grad(g.sum(), x["a"])


@pytest.mark.parametrize("name", ["unialign", pytest.param("gram", marks=pytest.mark.slow)])
def test_inside_torch_compile(name: str) -> None:
    """Tiles write to their diagonals in place, which functionalization restricts."""
    # float64, since the float32 volume of three nearly dependent rows has few correct digits.
    linear = torch.nn.ModuleDict({key: torch.nn.Linear(6, 4) for key in "abc"}).double()
    objective, x = create(name, **NEED[name]), torch.randn(16, 6, dtype=torch.float64)

    def step(x: torch.Tensor, present: Any) -> torch.Tensor:
        return objective({key: linear[key](x) for key in "abc"}, present=present).total

    compiled = torch.compile(step, backend="aot_eager")
    present = {"b": torch.arange(16) % 3 != 0}
    wanted = torch.autograd.grad(step(x, present), list(linear.parameters()))
    found = torch.autograd.grad(compiled(x, present), list(linear.parameters()))
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-10)


def test_a_notebook_shows_total_and_terms() -> None:
    out = create("unialign", anchor="a")(rows())
    text = out._repr_html_()
    assert f"total</th><td>{out.total.item():.4g}</td>" in text
    assert all(f"{name}</th>" in text for name in out.terms)
