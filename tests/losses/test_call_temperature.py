"""Test temperatures, scales and biases passed in a call, for example as parameters of the caller's model."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import reference
import unialign as ua
from loss_cases import COMPLETE_ONLY, OBJECTIVES, draw_batch, draw_ids, draw_present, fit_modalities, make_objective
from unialign.errors import ConfigError
from unialign.losses import CallArguments
from unialign.train import grad_cache_backward


def kernel_of(case: str) -> str | None:
    return make_objective(case).get_config().get("kernel")


WITH_TEMPERATURE = [case for case in OBJECTIVES if "temperature" in make_objective(case).call_arguments]
WITH_TEMPERATURE = [case for case in WITH_TEMPERATURE if kernel_of(case) != "wang_isola"]
# In these cases, the kernel is not differentiable with respect to the temperature.
GEODESIC = [case for case in WITH_TEMPERATURE if kernel_of(case) == "geodesic"]
WITHOUT = ("pmrl", "align_uniform")
TAU = 0.31


def same_with_option(case: str) -> ua.losses.Objective:
    if OBJECTIVES[case][0] == "sigmoid":
        return make_objective(case, scale=1 / TAU)
    if OBJECTIVES[case][0] == "unialign":
        return make_objective(case, temperature=TAU)
    return make_objective(case, temperature=TAU, temperature_bounds=(1e-4, 10.0))


def value_and_gradients(
    case: str, objective: ua.losses.Objective, number: Tensor | None, **call: Any
) -> tuple[Tensor, ...]:
    modalities = fit_modalities(case, 3)
    leaves = {name: z.requires_grad_() for name, z in draw_batch(7, modalities, 6, 5).items()}
    present = None if OBJECTIVES[case][0] in COMPLETE_ONLY else draw_present(21, modalities, 6)
    total = objective(leaves, present=present, ids=draw_ids(3, 6), **call).total
    numbers = [] if number is None else [number]
    return (total, *torch.autograd.grad(total, [*leaves.values(), *numbers], allow_unused=True, materialize_grads=True))


def as_module(tau: Tensor) -> nn.Module:
    class Model(nn.Module):
        def forward(self) -> Tensor:
            return tau

    return Model()


@pytest.mark.parametrize("case", WITH_TEMPERATURE)
def test_every_form_equals_the_option(case: str):
    """Passing the temperature as a number, tensor, function or module gives the values and gradients of the option."""
    expected = value_and_gradients(case, same_with_option(case).double(), None)
    objective, tau = make_objective(case).double(), torch.tensor(TAU, dtype=torch.float64)
    forms: list[CallArguments] = [
        {"temperature": TAU},
        {"temperature": np.float64(TAU)},
        {"temperature": tau},
        {"temperature": tau[None]},
        {"temperature": lambda: tau},
        {"temperature": as_module(tau)},
        {"logit_scale": 1 / TAU},
        {"logit_scale": lambda: 1 / tau},
    ]
    for call in forms:
        torch.testing.assert_close(value_and_gradients(case, objective, None, **call), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("case", [case for case in WITH_TEMPERATURE if case not in GEODESIC])
def test_gradient_equals_a_finite_difference(case: str):
    objective, log_scale = make_objective(case).double(), torch.tensor(1.2, dtype=torch.float64, requires_grad=True)
    *_, gradient = value_and_gradients(case, objective, log_scale, logit_scale=lambda: log_scale.exp())
    step = 1e-5
    high, low = (
        value_and_gradients(case, objective, None, logit_scale=(log_scale.detach() + sign * step).exp())[0]
        for sign in (1, -1)
    )
    torch.testing.assert_close(gradient, (high - low).detach() / (2 * step), rtol=1e-6, atol=1e-8)
    assert all(p.grad is None for p in objective.parameters())


def test_open_clip_loop_trains_its_own_scale():
    """As in open_clip, the model passes `log_scale.exp()`, and the gradient reaches `log_scale`."""
    log_scale = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
    batch = draw_batch(1, 2, 7, 5)
    loss = ua.losses.InfoNCE()
    out = loss(batch, logit_scale=log_scale.exp())
    out.total.backward()
    own = log_scale.detach().clone().requires_grad_()
    expected = reference.infonce(reference.unit_rows(batch), anchor="all", tau=torch.exp(-own))
    (gradient,) = torch.autograd.grad(expected, own)
    torch.testing.assert_close(out.total, expected)
    torch.testing.assert_close(log_scale.grad, gradient)


def test_siglip_scale_and_bias():
    scale, bias = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (4.0, -2.0))
    batch = draw_batch(2, 2, 6, 5)
    total = ua.losses.Sigmoid()(batch, logit_scale=scale, logit_bias=lambda: bias).total
    expected = reference.sigmoid(reference.unit_rows(batch), anchor="all", scale=scale, bias=bias)
    torch.testing.assert_close(total, expected)
    got, wanted = (torch.autograd.grad(value, (scale, bias)) for value in (total, expected))
    torch.testing.assert_close(got, wanted)
    # The scale of the objective is used if only a bias is passed.
    only_bias = ua.losses.Sigmoid()(batch, logit_bias=-2.0).total
    torch.testing.assert_close(only_bias, ua.losses.Sigmoid(bias=-2.0)(batch).total)


@pytest.mark.parametrize("case", WITH_TEMPERATURE)
def test_the_total_has_the_dtype_of_the_rows(case: str):
    batch = {name: z.float() for name, z in draw_batch(3, fit_modalities(case, 3), 6, 5).items()}
    tau = torch.tensor(TAU, dtype=torch.float64, requires_grad=case not in GEODESIC)
    assert make_objective(case)(batch, temperature=tau).total.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_scale_of_any_dtype(dtype: torch.dtype):
    """The reciprocal of a half-precision scale is computed in float32, and the gradient has the dtype of the scale."""
    scale = torch.tensor(14.0, dtype=dtype, requires_grad=True)
    batch = {name: z.float() for name, z in draw_batch(3, 2, 6, 5).items()}
    total = ua.losses.InfoNCE()(batch, logit_scale=scale).total
    torch.testing.assert_close(total, ua.losses.InfoNCE(temperature=1 / 14)(batch).total)
    total.backward()
    assert scale.grad is not None
    assert scale.grad.dtype == dtype


@pytest.mark.parametrize("case", ["infonce", "sigmoid", "symile-sampled", "gram", "cua", "paper"])
def test_gradient_cache(case: str):
    """The temperature function is called once, and all gradients equal those without the cache."""
    calls = []

    def run(backward: Callable[..., Any]) -> list[Tensor]:
        torch.manual_seed(0)
        model = nn.ModuleDict({f"m{m}": nn.Linear(5, 4) for m in range(3)}).double()
        log_scale = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))

        def logit_scale() -> Tensor:
            calls.append(1)
            return log_scale.exp()

        backward(make_objective(case).double(), model, draw_batch(5, 3, 6, 5), logit_scale)
        return [p.grad for p in (*model.parameters(), log_scale)]

    def plain(objective: Any, model: nn.ModuleDict, x: dict[str, Tensor], scale: Any) -> None:
        objective({name: model[name](x[name]) for name in x}, logit_scale=scale).total.backward()

    def cached(objective: Any, model: nn.ModuleDict, x: dict[str, Tensor], scale: Any) -> None:
        parts = [{name: z[at : at + 2] for name, z in x.items()} for at in range(0, 6, 2)]
        grad_cache_backward(
            objective, lambda part: {name: model[name](z) for name, z in part.items()}, parts, logit_scale=scale
        )

    torch.testing.assert_close(run(cached), run(plain), rtol=1e-10, atol=1e-12)
    assert len(calls) == 2


def test_errors():
    z = draw_batch(1, 3, 4, 5)
    for name in WITHOUT:
        for call in ({"temperature": 0.1}, {"logit_scale": torch.tensor(10.0)}):
            with pytest.raises(ConfigError, match=f"{name} does not support .*= in a call"):
                make_objective(name)(z, **call)
    loss = make_objective("infonce")
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"temperature": 0.1, "logit_scale": 10.0}, "give one of them"),
        ({"temperature": 0.0}, "temperature must be a positive finite number of at least 1e-6 .*got 0.0"),
        ({"temperature": torch.tensor(-1.0)}, "temperature must be a positive finite number .*got -1.0"),
        ({"temperature": lambda: None}, "temperature= is a function that returned None"),
        ({"logit_scale": 1e9}, "logit_scale must be a positive number of at most 1e6"),
        ({"logit_scale": torch.tensor(1e9)}, "logit_scale must be a positive number of at most 1e6"),
        ({"temperature": torch.tensor(torch.nan)}, "got nan"),
        (
            {"logit_scale": lambda: torch.tensor(0.0)},
            r"logit_scale must be a positive number .*\(1 / temperature, after exp\)",
        ),
        ({"logit_scale": torch.ones(2)}, r"shape \(2,\); expected one floating-point number"),
        ({"logit_scale": torch.tensor(3)}, "expected one floating-point number"),
        ({"temperature": "0.1"}, "temperature must be"),
        ({"temperature": True}, "temperature must be"),
        ({"logit_bias": -1.0}, "infonce does not support logit_bias= in a call; it supports temp"),
    ]
    for call, message in wrong:
        with pytest.raises(ConfigError, match=message):
            loss(z, **call)
    for case in GEODESIC:
        with pytest.raises(ConfigError, match="kernel='geodesic' has no gradient with respect to"):
            make_objective(case)(z, temperature=torch.tensor(0.3, requires_grad=True))
    with pytest.raises(ConfigError, match="kernel='wang_isola' has no temperature"):
        make_objective("wang_isola")(z, temperature=0.1)
    with pytest.raises(ConfigError, match="sigmoid does not support negatives="):
        make_objective("sigmoid")(z, negatives={"m0": torch.randn(3, 5)})
