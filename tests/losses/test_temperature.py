"""A learnable temperature has an exact initial value, stays within its bounds, and can leave them again."""

import pytest
import torch

from loss_cases import draw_batch
from unialign.errors import ConfigError
from unialign.losses import InfoNCE
from unialign.losses._bounded_parameter import Temperature


def test_fixed_is_a_number():
    temperature = Temperature(0.07)
    assert temperature() == 0.07
    assert temperature.value() == 0.07
    assert temperature.at_bound() is None
    assert list(temperature.parameters()) == []


def test_fixed_ignores_the_bounds():
    assert Temperature(5.0)() == 5.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_initial_value_is_exact(dtype: torch.dtype):
    temperature = Temperature(0.07, mode="learnable").to(dtype)
    assert temperature() == torch.tensor(0.07, dtype=dtype)


@pytest.mark.parametrize(("push", "side", "bound"), [(-50.0, "low", 0.01), (50.0, "high", 1.0)])
def test_clamped_values_can_recover(push: float, side: str, bound: float):
    """A clamp inside the graph has no gradient outside of its bounds, so the parameter could not return."""
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

    assert train({"m0": aligned, "m1": -aligned}) == pytest.approx(0.5)  # all pairs wrong: upper bound
    assert objective.temperature.at_bound() == "high"
    assert train({"m0": aligned, "m1": aligned}) < 0.2  # all pairs right: lower bound


def test_two_losses_before_one_backward():
    # The clamp is in place; it must not invalidate a graph that holds an earlier value.
    objective = InfoNCE("m0", temperature_mode="learnable")
    embeddings = draw_batch(2, 2, 4, 5)
    (objective(embeddings).total + objective(embeddings).total).backward()
    assert torch.isfinite(objective.temperature.shift.grad)


def test_invalid_bounds():
    for bounds in [(0.1, 1.0), (0.01, 0.05), (1.0, 0.01), (-1.0, 1.0), "ab", (0.01,), None]:
        with pytest.raises(ConfigError, match="bounds"):
            Temperature(0.07, mode="learnable", bounds=bounds)
