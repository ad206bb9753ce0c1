"""The temperature of a softmax: a number, or a parameter held inside its bounds."""

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from unialign._checks import check_choice, check_temperature
from unialign.errors import ConfigError

__all__ = ["Temperature", "TemperatureMode"]

TemperatureMode = Literal["fixed", "learnable"]


class Temperature(nn.Module):
    """tau = initial * exp(shift); the shift is learnt (CLIP's logit scale is 1 / tau) and clamped to the bounds.

    The parameter starts at 0, so the initial temperature is exact in every dtype.

    Args:
        initial: tau > 0 at the start.
        mode: `fixed`, or `learnable`.
        bounds: lowest and highest tau of the learnable mode. CLIP caps 1 / tau at 100.
    """

    def __init__(
        self, initial: float, *, mode: TemperatureMode = "fixed", bounds: tuple[float, float] = (0.01, 1.0)
    ) -> None:
        super().__init__()
        check_temperature(initial)
        check_choice("temperature_mode", mode, get_args(TemperatureMode))
        if not (isinstance(bounds, list | tuple) and len(bounds) == 2):
            raise ConfigError(f"temperature_bounds must be two numbers, lowest and highest, got {bounds!r}")
        low, high = bounds
        check_temperature(low, "temperature_bounds[0]")
        check_temperature(high, "temperature_bounds[1]")
        if mode == "learnable" and not 0 < low <= initial <= high:
            raise ConfigError(f"temperature {initial} is outside its bounds ({low}, {high})")
        self.initial, self.mode, self.bounds = float(initial), mode, (float(low), float(high))
        if mode == "learnable":
            self.shift = nn.Parameter(torch.zeros(()))

    def forward(self) -> Tensor | float:
        if self.mode == "fixed":
            return self.initial
        low, high = (math.log(bound / self.initial) for bound in self.bounds)
        # In place, before it enters the graph: inside the graph a clamp has no gradient to lead back from a bound.
        with torch.no_grad():
            self.shift.clamp_(low, high)
        return self.initial * torch.exp(self.shift)

    @torch.no_grad()
    def value(self) -> float:
        """The current temperature as a number."""
        return float(self())

    def at_bound(self) -> str | None:
        """Which bound a learnable temperature sits at: `low`, `high`, or None."""
        if self.mode == "fixed":
            return None
        value = self.value()
        if value <= self.bounds[0] * 1.0001:
            return "low"
        return "high" if value >= self.bounds[1] * 0.9999 else None
