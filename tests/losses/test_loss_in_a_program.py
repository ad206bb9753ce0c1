"""Test losses with activation checkpointing, with `torch.compile`, with second derivatives, and in notebooks."""

from copy import deepcopy
from functools import partial
from typing import Any

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from unialign.batch import make_batch
from unialign.errors import ConfigError, NonFiniteError
from unialign.functional import gram_volume
from unialign.losses import create, names

NEED = {name: {} if name in ("pmrl", "symile") else {"anchor": "a"} for name in names()}


def rows() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {name: torch.randn(8, 4, generator=generator).requires_grad_() for name in "abc"}


@pytest.mark.parametrize("name", names())
def test_inside_activation_checkpointing(name: str) -> None:
    """Activation checkpointing runs the loss twice and allows only one read of each saved tensor."""
    x = rows()
    create(name, **NEED[name])(x).total.backward()
    wanted = {key: z.grad for key, z in x.items()}
    x, objective = rows(), create(name, **NEED[name]).eval()

    def total(a: torch.Tensor) -> torch.Tensor:
        return objective(x | {"a": a}).total

    checkpoint(total, x["a"], use_reentrant=False).backward()
    for key, z in x.items():
        torch.testing.assert_close(z.grad, wanted[key])


@pytest.mark.parametrize("name", names())
def test_a_second_derivative_raises(name: str) -> None:
    """The error must be raised even if the second derivative is taken for only one input."""
    x = {key: z.detach().double().requires_grad_() for key, z in rows().items()}
    objective = create(name, **NEED[name])
    (g,) = torch.autograd.grad(objective(x).total, x["a"], create_graph=True)
    with pytest.raises(ConfigError, match=r"second derivative|first derivatives only"):
        torch.autograd.grad(g.sum(), x["a"])


BACKENDS = [("eager", name, keys) for name in names() for keys in ("ab", "abc") if (name, keys) != ("triangle", "ab")]
BACKENDS += [("aot_eager", "unialign", "ab"), ("aot_eager", "symile", "abc")]
BACKENDS += [pytest.param("inductor", "sigmoid", "abc", marks=pytest.mark.slow)]


@pytest.mark.parametrize(("backend", "name", "keys"), BACKENDS)
def test_a_graph_without_breaks_has_the_values_and_gradients_of_eager_mode(backend: str, name: str, keys: str) -> None:
    torch.compiler.reset()  # All cases share the limit on compilations.
    linear = torch.nn.ModuleDict({key: torch.nn.Linear(6, 4) for key in keys})
    eager = create(name, **NEED[name])
    traced = deepcopy(eager)

    def step(objective: Any, x: torch.Tensor) -> Any:
        return objective({key: linear[key](x) for key in keys})

    compiled = torch.compile(partial(step, traced), backend=backend, fullgraph=True)
    for seed in (0, 1):
        x = torch.randn(16, 6, generator=torch.Generator().manual_seed(seed))
        found, wanted = compiled(x), step(eager, x)
        # A graph returns 0 for terms that eager mode omits.
        terms = dict.fromkeys(found.terms, torch.zeros(())) | wanted.terms
        torch.testing.assert_close((found.total, found.terms), (wanted.total, terms), rtol=1e-5, atol=1e-6)
        gradients = (
            torch.autograd.grad(out.total, [*linear.parameters(), *objective.parameters()])
            for out, objective in ((found, traced), (wanted, eager))
        )
        torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)
    for a, b in zip(traced.buffers(), eager.buffers(), strict=True):
        assert torch.equal(a, b)  # Both objectives made the same number of random draws.


def test_a_graph_takes_masks_ids_and_a_temperature_and_raises_the_errors_of_eager_mode() -> None:
    objective = create("infonce", anchor="all")
    present, ids = {"b": torch.arange(8) % 3 != 0}, torch.arange(8) // 2

    def step(a: torch.Tensor, b: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return objective({"a": a, "b": b}, present=present, ids=ids, logit_scale=scale.exp()).total

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    x, scale = rows(), torch.tensor(2.0, requires_grad=True)
    inputs = (x["a"], x["b"], scale)
    found, wanted = (torch.autograd.grad(function(*inputs), inputs) for function in (compiled, step))
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-7)
    for value, message in ((torch.nan, "row 1 holds nan"), (0.0, "row 1 has norm zero")):
        bad = x["b"].detach().clone()
        bad[1] = value
        with pytest.raises(NonFiniteError, match=message):
            compiled(x["a"], bad, scale)


def test_a_second_derivative_of_a_graph_raises() -> None:
    x = rows()
    compiled = torch.compile(create("unialign"), backend="eager", fullgraph=True)
    (g,) = torch.autograd.grad(compiled(x).total, x["a"], create_graph=True)
    with pytest.raises(ConfigError, match="no second derivative"):
        torch.autograd.grad(g.sum(), x["b"])


def test_cuda_graphs_leave_out_the_operator() -> None:
    from unialign.losses import _compiled  # noqa: F401

    if hasattr(torch.Tag, "cudagraph_unsafe"):
        assert torch.Tag.cudagraph_unsafe in torch.ops.unialign.objective.default.tags


def test_graphs_without_gradients() -> None:
    """Calls that break the graph, and functions that are not objectives, normalize rows inside the graph."""
    x = {name: z.detach() for name, z in rows().items()}
    loss, negatives = create("infonce", anchor="a"), {"b": x.pop("c")}

    def total(x: dict[str, torch.Tensor]) -> torch.Tensor:
        return loss(x, negatives=negatives).total

    def unit(x: dict[str, torch.Tensor]) -> torch.Tensor:
        return make_batch({"a": x["a"], "b": x["b"]}).z_MBD

    def volume(x: dict[str, torch.Tensor]) -> torch.Tensor:
        return gram_volume({"a": x["a"], "b": x["b"]}).mean()

    for function in (total, unit, volume):
        torch.compiler.reset()
        compiled = torch.compile(function, backend="eager")
        torch.testing.assert_close(compiled(x), function(x))
        with torch.no_grad():
            torch.testing.assert_close(compiled(x), function(x))


def test_a_notebook_shows_total_and_terms() -> None:
    out = create("unialign", anchor="a")(rows())
    text = out._repr_html_()
    assert f"total</th><td>{out.total.item():.4g}</td>" in text
    assert all(f"{name}</th>" in text for name in out.terms)
