"""Fixed numbers and learned parameters within bounds, such as the temperature of a softmax."""

import math
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from unialign._checks import check_choice, check_number, check_temperature
from unialign.errors import ConfigError

Mode = Literal["fixed", "learnable"]
Spacing = Literal["log", "linear"]


class BoundedParameter(nn.Module):
    """A fixed number, or a learned parameter initial * exp(shift) (`log` spacing) or initial + shift (`linear`).

    The shift starts at 0, which keeps the initial value exact. It stays in float32 if the module is converted to half
    precision, which would round a temperature of 0.07 to 0.0698. The option for the bounds is `<option>_bounds`.
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
        self.label = option  # the name in warnings
        self.bounds = (float(low), float(high))
        if mode == "learnable":
            self.shift = nn.Parameter(torch.zeros(()))

    def forward(self) -> Tensor | float:
        if self.mode == "fixed":
            return self.initial
        self.clamp_()
        return self.initial * torch.exp(self.shift) if self.spacing == "log" else self.initial + self.shift

    def clamp_(self) -> None:
        """Clamp in place, since a clamp inside the graph has no gradient at a bound."""
        if self.mode == "learnable":
            low, high = (self._shift_to(bound) for bound in self.bounds)
            # On a CPU, reading the shift is cheaper than a clamp. Elsewhere, it would synchronize the device.
            readable = self.shift.device.type == "cpu" and not torch.compiler.is_compiling()
            if readable and low <= self.shift.item() <= high:
                return
            with torch.no_grad():
                self.shift.clamp_(low, high)

    @torch.no_grad()
    def value(self) -> float:
        """Before training, this is exactly the initial value."""
        self()  # clamps
        shift = float(self.shift) if self.mode == "learnable" else 0.0
        return self.initial * math.exp(shift) if self.spacing == "log" else self.initial + shift

    @torch.no_grad()
    def at_bound(self) -> Literal["low", "high"] | None:
        if self.mode == "fixed":
            return None
        self()  # clamps
        shift, (low, high) = float(self.shift), map(self._shift_to, self.bounds)
        near = 1e-4 if self.spacing == "log" else 1e-4 * (high - low)
        if shift <= low + near:
            return "low"
        return "high" if shift >= high - near else None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "BoundedParameter":
        """The parameter stays in float32 or a wider dtype."""

        def convert(x: Tensor) -> Tensor:
            converted = fn(x)
            return x.to(converted.device, torch.float32) if _is_half(converted) else converted

        return super()._apply(convert, recurse)  # type: ignore[no-untyped-call, no-any-return]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # `load_state_dict(assign=True)` would adopt the dtype of the state dict.
        shift = state_dict.get(f"{prefix}shift")
        if isinstance(shift, Tensor) and _is_half(shift):
            state_dict[f"{prefix}shift"] = shift.float()
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _shift_to(self, value: float) -> float:
        return math.log(value / self.initial) if self.spacing == "log" else value - self.initial

    def _check_value(self, value: float, option: str) -> None:
        if self.spacing == "log":
            check_temperature(value, option)
        else:
            check_number(option, value, "a finite number", math.isfinite)


def _is_half(x: Tensor) -> bool:
    return x.is_floating_point() and x.element_size() < 4


class Temperature(BoundedParameter):
    """Temperature tau = initial * exp(shift) of a softmax; CLIP's logit scale is 1 / tau, at most 100."""

    def __init__(self, initial: float, *, mode: Mode = "fixed", bounds: tuple[float, float] = (0.01, 1.0)) -> None:
        check_choice("temperature_mode", mode, get_args(Mode))
        super().__init__("temperature", initial, mode=mode, bounds=bounds, spacing="log")

    def get_config(self) -> dict[str, Any]:
        return {
            "temperature": self.initial,
            "temperature_mode": self.mode,
            "temperature_bounds": list(self.bounds),
        }
