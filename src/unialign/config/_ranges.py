"""Checks for fields of configurations."""

import math

from unialign._checks import check_integer, check_number
from unialign.config._base import Check
from unialign.errors import ConfigError

# Minimum and maximum. More resamples would take hours without changing any reported digit.
RESAMPLES = (100, 1_000_000)


def integer(low: int, high: int | None = None) -> Check:
    return lambda name, value: check_integer(name, value, low=low, high=high)


def positive(name: str, value: object) -> None:
    check_number(name, value, "a positive finite number", lambda x: 0 < x < math.inf)


def fraction(name: str, value: object) -> None:
    check_number(name, value, "a number in [0, 1)", lambda x: 0 <= x < 1)


def not_empty(name: str, value: tuple[object, ...]) -> None:
    if not value:
        raise ConfigError(f"{name} must not be empty")
