"""Check field values of configurations: each function takes name and value and raises ConfigError."""

import math

from unialign._checks import check_integer, check_nonnegative, check_number
from unialign.config._base import Check

__all__ = ["RESAMPLES", "fraction", "integer", "nonnegative", "positive"]


# More resamples than the maximum take hours and change no digit that is reported.
RESAMPLES = (100, 1_000_000)


def integer(low: int, high: int | None = None) -> Check:
    """An integer in [low, high]."""
    return lambda name, value: check_integer(name, value, low=low, high=high)


def nonnegative(name: str, value: object) -> None:
    """A finite number of at least 0."""
    check_nonnegative(name, value)


def positive(name: str, value: object) -> None:
    """A positive finite number."""
    check_number(name, value, "a positive finite number", lambda x: 0 < x < math.inf)


def fraction(name: str, value: object) -> None:
    """A number in [0, 1)."""
    check_number(name, value, "a number in [0, 1)", lambda x: 0 <= x < 1)
