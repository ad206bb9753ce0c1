"""Numbers and learned parameters within bounds, such as the temperature of a softmax."""

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from unialign._checks import check_choice, check_number, check_temperature
from unialign.errors import ConfigError

Mode = Literal["fixed", "learnable"]
Spacing = Literal["log", "linear"]


class BoundedParameter(nn.Module):
    """A number, or a learned parameter: initial * exp(shift) for `log` spacing, initial + shift for `linear`.

    The shift starts at 0, which keeps the initial value exact in every dtype, and is clamped to the bounds.

    Args:
        option: name of the option in messages, such as `temperature`; the option of its bounds is `<option>_bounds`.
        initial: initial value; positive for `log` spacing.
        mode: `fixed`, or `learnable`.
        bounds: lowest and highest value of the learnable mode.
        spacing: `log` or `linear`.
    """

    def __init__(
        self, option: str, initial: float, *, mode: Mode, bounds: tuple[float, float], spacing: Spacing
    ) -> None:
        super().__init__()
        self.spacing: Spacing = spacing
        self._check_value(initial, option)
        if not (isinstance(bounds, list | tuple) and len(bounds) == 2):
            raise ConfigError(f"{option}_bounds must be two numbers, lowest and highest, got {bounds!r}")
        low, high = bounds
        self._check_value(low, f"{option}_bounds[0]")
        self._check_value(high, f"{option}_bounds[1]")
        if mode == "learnable" and not low <= initial <= high:
            raise ConfigError(f"{option} {initial} is outside its bounds ({low}, {high})")
        self.option, self.initial, self.mode = option, float(initial), mode
        self.bounds = (float(low), float(high))
        if mode == "learnable":
            self.shift = nn.Parameter(torch.zeros(()))

    def forward(self) -> Tensor | float:
        if self.mode == "fixed":
            return self.initial
        # Clamp in place, outside the graph: a clamp inside the graph has no gradient at a bound.
        with torch.no_grad():
            self.shift.clamp_(*map(self._shift_to, self.bounds))
        return self.initial * torch.exp(self.shift) if self.spacing == "log" else self.initial + self.shift

    @torch.no_grad()
    def value(self) -> float:
        """Return the current value as a number."""
        return float(self())

    @torch.no_grad()
    def at_bound(self) -> Literal["low", "high"] | None:
        """Return the bound reached by a learnable value: `low`, `high`, or None."""
        if self.mode == "fixed":
            return None
        self()  # clamps
        shift, (low, high) = float(self.shift), map(self._shift_to, self.bounds)
        near = 1e-4 if self.spacing == "log" else 1e-4 * (high - low)
        if shift <= low + near:
            return "low"
        return "high" if shift >= high - near else None

    def _shift_to(self, value: float) -> float:
        return math.log(value / self.initial) if self.spacing == "log" else value - self.initial

    def _check_value(self, value: float, option: str) -> None:
        if self.spacing == "log":
            check_temperature(value, option)
        else:
            check_number(option, value, "a finite number", math.isfinite)


class Temperature(BoundedParameter):
    """Temperature tau = initial * exp(shift) of a softmax; CLIP's logit scale is 1 / tau.

    Args:
        initial: initial tau > 0.
        mode: `fixed`, or `learnable`.
        bounds: lowest and highest tau of the learnable mode. CLIP caps 1 / tau at 100.
    """

    def __init__(self, initial: float, *, mode: Mode = "fixed", bounds: tuple[float, float] = (0.01, 1.0)) -> None:
        check_choice("temperature_mode", mode, get_args(Mode))
        super().__init__("temperature", initial, mode=mode, bounds=bounds, spacing="log")

    def get_config(self) -> dict[str, Any]:
        """Return JSON-able options that rebuild an objective with this temperature."""
        return {
            "temperature": self.initial,
            "temperature_mode": self.mode,
            "temperature_bounds": list(self.bounds),
        }
