"""Checks of options: every refusal is a `ConfigError` that names the option, what was expected and what was given."""

import math
from collections.abc import Callable, Iterable

from unialign.errors import ConfigError

__all__ = ["check_choice", "check_integer", "check_nonnegative", "check_number", "check_temperature"]


def check_choice(option: str, value: object, allowed: Iterable[object]) -> None:
    """Refuse a value that is none of the allowed ones."""
    known = tuple(allowed)
    if value not in known:
        raise ConfigError(f"unknown {option} {value!r}; expected one of {', '.join(map(repr, known))}")


def check_integer(option: str, value: object, *, low: int, high: int | None = None) -> None:
    """Refuse what is no integer from `low` to `high`."""
    # bool is an int in Python, and True epochs are nonsense.
    if not isinstance(value, int) or isinstance(value, bool) or value < low or (high is not None and value > high):
        wanted = f"an integer of at least {low}" if high is None else f"an integer from {low} to {high}"
        raise ConfigError(f"{option} must be {wanted}, got {value!r}")


def check_number(option: str, value: object, expected: str, accept: Callable[[float], bool]) -> None:
    """Refuse what is no number, or one that `accept` refuses; `expected` completes "must be ..."."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not accept(value):
        # YAML reads 1e-3 as a string: it wants 1.0e-3.
        hint = "; in YAML write 1.0e-3, not 1e-3" if isinstance(value, str) else ""
        raise ConfigError(f"{option} must be {expected}, got {value!r}{hint}")


def check_temperature(value: object, option: str = "temperature") -> None:
    """Refuse what is no positive finite number."""
    check_number(option, value, "a positive finite number", lambda x: 0 < x < math.inf)


def check_nonnegative(option: str, value: object) -> None:
    """Refuse what is no finite number of at least 0."""
    check_number(option, value, "a finite number of at least 0", lambda x: 0 <= x < math.inf)
