"""One temperature for each modality (e5-omni, arXiv 2601.03666); the temperature of a pair is a geometric mean."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unialign._checks import check_temperature, suggestion
from unialign.errors import ConfigError
from unialign.losses._bounded_parameter import Mode, Temperature


class ModalityTemperature(nn.Module):
    """Temperatures of modalities, each fixed or learned within common bounds.

    The logits of a pair (m, n) are cos / sqrt(tau_m tau_n), so that log tau of a pair is the mean of log tau_m and log
    tau_n, in both directions.
    """

    def __init__(
        self, initial: Mapping[str, float], *, mode: Mode = "fixed", bounds: tuple[float, float] = (0.01, 1.0)
    ) -> None:
        super().__init__()
        check_temperatures(initial)
        self.names = tuple(initial)
        # Use a list instead of nn.ModuleDict, since names such as "rna.seq" cannot be attributes.
        self.of_modalities = nn.ModuleList(Temperature(tau, mode=mode, bounds=bounds) for tau in initial.values())
        for name, temperature in zip(self.names, self._temperatures(), strict=True):
            temperature.label = f"temperature of {name!r}"

    def pair(self, first: Sequence[str], second: Sequence[str]) -> Tensor | float:
        """Geometric mean of the temperatures of two sides, each a geometric mean over modalities."""
        sides = [[self._temperature(name)() for name in side] for side in (first, second)]
        if all(isinstance(tau, float) for side in sides for tau in side):
            return geometric_mean(geometric_mean(side) for side in sides)
        logs = [torch.stack([torch.log(torch.as_tensor(tau)) for tau in side]).mean() for side in sides]
        return torch.exp((logs[0] + logs[1]) / 2)

    @torch.no_grad()
    def value(self) -> float:
        """Geometric mean of all temperatures."""
        return geometric_mean(self.values().values())

    @torch.no_grad()
    def values(self) -> dict[str, float]:
        return {name: t.value() for name, t in zip(self.names, self._temperatures(), strict=True)}

    def get_config(self) -> dict[str, Any]:
        configs = [temperature.get_config() for temperature in self._temperatures()]
        taus = {name: config["temperature"] for name, config in zip(self.names, configs, strict=True)}
        return configs[0] | {"temperature": taus}

    def _temperatures(self) -> list[Temperature]:
        return list(self.of_modalities)  # type: ignore[arg-type]

    def _temperature(self, name: str) -> Temperature:
        return self._temperatures()[self.names.index(known_name(name, self.names))]


def make_temperature(
    initial: float | Mapping[str, float], *, mode: Mode, bounds: tuple[float, float]
) -> Temperature | ModalityTemperature:
    if isinstance(initial, Mapping):
        return ModalityTemperature(initial, mode=mode, bounds=bounds)
    return Temperature(initial, mode=mode, bounds=bounds)


def check_temperatures(temperature: object) -> None:
    if not isinstance(temperature, Mapping):
        check_temperature(temperature)
        return
    if not temperature or not all(isinstance(name, str) for name in temperature):
        raise ConfigError(
            f"temperature must be a number, or a mapping such as {{'image': 0.05, 'text': 0.1}}, got {temperature!r}"
        )
    for name, tau in temperature.items():
        check_temperature(tau, f"temperature[{name!r}]")


def known_name(name: str, names: Iterable[str]) -> str:
    known = tuple(names)
    if name not in known:
        raise ConfigError(
            f"temperature has no value for {name!r}, only for {', '.join(map(repr, known))}{suggestion(name, known)}; "
            "give every modality a temperature"
        )
    return name


def geometric_mean(values: Iterable[float]) -> float:
    numbers = list(values)
    if len(set(numbers)) == 1:
        return numbers[0]
    product = 1.0
    for number in sorted(numbers):
        product *= number ** (1 / len(numbers))
    return product
