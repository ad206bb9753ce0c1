"""Temperature of a softmax: a number, or a learned parameter within bounds."""

from typing import Any, get_args

from unialign._checks import check_choice
from unialign.losses._bounded_parameter import BoundedParameter, Mode

__all__ = ["Temperature"]


class Temperature(BoundedParameter):
    """tau = initial * exp(shift); the shift is learned and clamped to the bounds (CLIP's logit scale is 1 / tau).

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
