"""Test initial values, bounds, dtype conversions and saved states of learnable temperatures."""

import pytest
import torch

from loss_cases import draw_batch
from unialign.errors import ConfigError
from unialign.losses import InfoNCE, Sigmoid
from unialign.losses._bounded_parameter import Temperature


def test_fixed_is_a_number():
    temperature = Temperature(0.07)
    assert temperature() == 0.07
    assert temperature.value() == 0.07
    assert temperature.at_bound() is None
    assert list(temperature.parameters()) == []


def test_fixed_ignores_the_bounds():
    assert Temperature(5.0)() == 5.0


CONVERSIONS = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", CONVERSIONS)
def test_initial_value_is_exact(dtype: torch.dtype):
    """The parameter must not be stored in bfloat16, which would round 0.07 to 0.069824."""
    temperature = Temperature(0.07, mode="learnable").to(dtype)
    kept = torch.float64 if dtype == torch.float64 else torch.float32
    assert temperature.shift.dtype == kept
    assert temperature() == torch.tensor(0.07, dtype=kept)
    assert temperature.value() == 0.07
    assert InfoNCE(temperature_mode="learnable").to(dtype).temperature.value() == 0.07
    assert Sigmoid(scale=10.3, bias=-9.7).to(dtype).scale_and_bias() == (10.3, -9.7)


def test_conversions_keep_learned_numbers_and_their_parameter():
    objective = Sigmoid(scale=10.3, bias=-9.7)
    parameters = list(objective.parameters())
    with torch.no_grad():
        for i, parameter in enumerate(parameters):
            parameter += 0.123456 + i
    for name in ("scale", "bias"):
        objective.logits[0][name].shift.grad = torch.ones(())
    learned = objective.scale_and_bias()
    for convert in ("bfloat16", "half", "float", "double", "bfloat16"):
        getattr(objective, convert)()
        # The parameters must stay the same objects, since optimizers and DDP keep references to them.
        assert all(map(lambda a, b: a is b, objective.parameters(), parameters))
        assert objective.scale_and_bias() == learned
        assert all(parameter.dtype == parameter.grad.dtype for parameter in parameters)
    model = torch.nn.ModuleDict({"head": torch.nn.Linear(2, 2), "loss": objective}).to(torch.bfloat16)
    assert model["head"].weight.dtype == torch.bfloat16
    assert objective.scale_and_bias() == learned


@pytest.mark.parametrize("dtype", CONVERSIONS)
def test_learned_numbers_survive_a_state(dtype: torch.dtype):
    objective = InfoNCE(temperature_mode="learnable").to(dtype)
    with torch.no_grad():
        objective.temperature.shift += 0.3
    state = {name: x.clone() for name, x in objective.state_dict().items()}
    for assign in (False, True):
        other = InfoNCE(temperature_mode="learnable").to(dtype)
        other.load_state_dict(state, assign=assign)
        assert other.temperature.value() == objective.temperature.value()
        assert other.temperature.shift.requires_grad
        other.load_state_dict({name: x.bfloat16() for name, x in state.items()}, assign=assign)
        assert other.temperature.shift.dtype in (torch.float32, torch.float64)
        assert other.temperature.value() == pytest.approx(objective.temperature.value(), rel=2e-3)


def test_half_precision_objectives_train():
    """The parameter stays in float32, since a step of 1e-4 is below the resolution of bfloat16 near 0.3."""
    embeddings = draw_batch(3, 2, 6, 5, torch.bfloat16)
    objective = InfoNCE(temperature_mode="learnable").bfloat16()
    with torch.no_grad():
        objective.temperature.shift += 0.3
    before = objective.temperature.value()
    optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-4, weight_decay=0.0)
    objective(embeddings).total.backward()
    optimizer.step()
    assert abs(objective.temperature.value() / before - 1) == pytest.approx(1e-4, rel=1e-2)


@pytest.mark.parametrize(("push", "side", "bound"), [(-50.0, "low", 0.01), (50.0, "high", 1.0)])
def test_clamped_values_can_recover(push: float, side: str, bound: float):
    """A value at a bound must have a gradient, or the parameter could never leave the bound."""
    temperature = Temperature(0.07, mode="learnable")
    with torch.no_grad():
        temperature.shift += push
    value = temperature()
    assert value.item() == pytest.approx(bound, rel=1e-6)
    assert temperature.at_bound() == side
    value.backward()
    assert temperature.shift.grad is not None
    assert temperature.shift.grad != 0
    with torch.no_grad():
        temperature.shift -= 0.1 if push > 0 else -0.1
    assert temperature.at_bound() is None
    assert 0.01 < temperature.value() < 1


def test_training_reaches_a_bound_and_recovers():
    aligned = draw_batch(1, 1, 8, 6)["m0"]
    objective = InfoNCE("m0", temperature_mode="learnable", temperature_bounds=(0.05, 0.5))
    optimizer = torch.optim.SGD(objective.parameters(), lr=5.0)

    def train(embeddings: dict[str, torch.Tensor]) -> float:
        for _ in range(30):
            optimizer.zero_grad()
            objective(embeddings).total.backward()
            optimizer.step()
        return objective.temperature.value()

    assert train({"m0": aligned, "m1": -aligned}) == pytest.approx(0.5)
    assert objective.temperature.at_bound() == "high"
    assert train({"m0": aligned, "m1": aligned}) < 0.2


def test_two_losses_before_one_backward():
    # The in-place clamp of the second call must not invalidate the graph of the first.
    objective = InfoNCE("m0", temperature_mode="learnable")
    embeddings = draw_batch(2, 2, 4, 5)
    (objective(embeddings).total + objective(embeddings).total).backward()
    assert torch.isfinite(objective.temperature.shift.grad)


def test_invalid_bounds():
    for bounds in [(0.1, 1.0), (0.01, 0.05), (1.0, 0.01), (-1.0, 1.0), "ab", (0.01,), None]:
        with pytest.raises(ConfigError, match="bounds"):
            Temperature(0.07, mode="learnable", bounds=bounds)
