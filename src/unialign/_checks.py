"""Checks of options: every refusal is a `ConfigError` that names the option, what was expected and what was given."""

import difflib
import math
import re
from collections.abc import Callable, Hashable, Iterable
from numbers import Integral
from typing import Any

from unialign.errors import ConfigError

__all__ = [
    "check_choice",
    "check_cutoffs",
    "check_integer",
    "check_nonnegative",
    "check_number",
    "check_seed",
    "check_temperature",
    "check_text",
    "closest",
    "has_surrogate",
]

_SURROGATE = re.compile("[\ud800-\udfff]")


def check_choice(option: str, value: object, allowed: Iterable[object]) -> None:
    """Refuse a value that is none of the allowed ones."""
    known = tuple(allowed)
    # An array compares by its entries and has no single answer; it is no choice either.
    if not isinstance(value, Hashable) or value not in known:
        meant = closest(value, known)
        hint = "" if meant is None else f"; did you mean {meant!r}?"
        raise ConfigError(f"unknown {option} {value!r}; expected one of {', '.join(map(repr, known))}{hint}")


def check_integer(option: str, value: object, *, low: int, high: int | None = None) -> None:
    """Refuse what is no integer from `low` to `high`."""
    # bool is an int in Python, and True epochs are nonsense.
    if not isinstance(value, int) or isinstance(value, bool) or value < low or (high is not None and value > high):
        wanted = f"an integer of at least {low}" if high is None else f"an integer from {low} to {high}"
        raise ConfigError(f"{option} must be {wanted}, got {value!r}")


def check_number(option: str, value: Any, expected: str, accept: Callable[[float], bool]) -> None:
    """Refuse what is no number, or one that `accept` refuses; `expected` completes "must be ..."."""
    if not _is_number(value) or not accept(value):
        # YAML reads 1e-3 as a string: it wants 1.0e-3.
        hint = "; in YAML write 1.0e-3, not 1e-3" if isinstance(value, str) else ""
        raise ConfigError(f"{option} must be {expected}, got {value!r}{hint}")


def check_temperature(value: object, option: str = "temperature") -> None:
    """Refuse what is no positive finite number; below 1e-6 exponents like 1 / tau^2 leave the range of float32."""
    check_number(option, value, "a positive finite number of at least 1e-6", lambda x: 1e-6 <= x < math.inf)


def check_nonnegative(option: str, value: object) -> None:
    """Refuse what is no finite number of at least 0."""
    check_number(option, value, "a finite number of at least 0", lambda x: 0 <= x < math.inf)


def check_text(option: str, value: object) -> None:
    """Refuse what is no string."""
    if not isinstance(value, str):
        raise ConfigError(f"{option} must be a string, got {value!r}")


def check_seed(value: object) -> None:
    """Refuse what NumPy and torch do not both take as a seed."""
    check_integer("seed", value, low=0, high=2**63 - 1)


def check_cutoffs(k: object) -> tuple[int, ...]:
    """The cut-offs of recall as a tuple; refuse what is not one or more integers of at least 1."""
    if isinstance(k, int) and not isinstance(k, bool):
        raise ConfigError(f"k must be a sequence of cut-offs, got the number {k}; write k=({k},)")
    cutoffs = tuple(k) if isinstance(k, Iterable) and not isinstance(k, str | bytes) else ()
    # NumPy's integers are welcome: cut-offs often come from `range` or `arange`.
    if not cutoffs or not all(
        isinstance(cut, Integral) and not isinstance(cut, bool) and int(cut) >= 1 for cut in cutoffs
    ):
        raise ConfigError(f"k must be one or more integers of at least 1, such as (1, 5, 10), got {k!r}")
    return tuple(int(cut) for cut in cutoffs)


def has_surrogate(text: str) -> bool:
    """Whether a text holds half a surrogate pair, which UTF-8 cannot write."""
    return _SURROGATE.search(text) is not None


def closest(value: object, known: Iterable[object]) -> str | None:
    """The known name that a wrong one resembles, whatever its case, hyphens or blanks; None if there is none."""
    if not isinstance(value, str):
        return None
    words = {_plain(word): word for word in known if isinstance(word, str)}
    close = difflib.get_close_matches(_plain(value), words, n=1, cutoff=0.7)
    return words[close[0]] if close else None


def _plain(word: str) -> str:
    return re.sub(r"[-+ ]", "_", word.lower())


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    # Python's integers have no end; torch takes those of 64 bits.
    return isinstance(value, float) or -(2**63) <= value < 2**63
