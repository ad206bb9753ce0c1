"""Checks of options."""

import difflib
import math
import re
import warnings
from collections.abc import Callable, Hashable, Iterable
from functools import cache
from numbers import Integral
from typing import Any

from unialign.errors import ConfigError

_SURROGATE = re.compile("[\ud800-\udfff]")
_SAFE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}", re.ASCII)


def check_choice(option: str, value: object, allowed: Iterable[object], *, owner: str = "") -> None:
    known = tuple(allowed)
    # Arrays are not hashable, and comparing them does not give a single bool.
    if not isinstance(value, Hashable) or value not in known:
        expected = ", ".join(map(repr, known))
        where = f" for {owner}" if owner else ""
        raise ConfigError(f"unknown {option} {value!r}{where}; expected one of {expected}{suggestion(value, known)}")


def check_integer(option: str, value: object, *, low: int, high: int | None = None) -> None:
    # bool is a subclass of int.
    if not isinstance(value, int) or isinstance(value, bool) or value < low or (high is not None and value > high):
        wanted = f"an integer of at least {low}" if high is None else f"an integer from {low} to {high}"
        raise ConfigError(f"{option} must be {wanted}, got {value!r}")


def check_number(option: str, value: Any, expected: str, accept: Callable[[float], bool]) -> None:
    """The error reads "must be `expected`"."""
    if not _is_number(value) or not accept(value):
        # YAML parses 1e-3 as a string and 1.0e-3 as a number.
        hint = "; in YAML write 1.0e-3, not 1e-3" if isinstance(value, str) else ""
        raise ConfigError(f"{option} must be {expected}, got {value!r}{hint}")


def check_temperature(value: object, option: str = "temperature") -> None:
    """1 / tau^2 must stay in float32's range."""
    check_number(option, value, "a positive finite number of at least 1e-6", lambda x: 1e-6 <= x < math.inf)


def check_nonnegative(option: str, value: object) -> None:
    check_number(option, value, "a finite number of at least 0", lambda x: 0 <= x < math.inf)


def check_text(option: str, value: object) -> None:
    if not isinstance(value, str):
        raise ConfigError(f"{option} must be a string, got {value!r}")


def check_seed(value: object) -> None:
    check_integer("seed", value, low=0, high=2**63 - 1)


def check_cutoffs(k: object) -> tuple[int, ...]:
    if isinstance(k, int) and not isinstance(k, bool):
        raise ConfigError(f"k must be a sequence of integers, got {k}; write k=({k},)")
    cutoffs = tuple(k) if isinstance(k, Iterable) and not isinstance(k, str | bytes) else ()
    # NumPy integers are valid, since cut-offs often come from `numpy.arange`.
    if not cutoffs or not all(
        isinstance(cut, Integral) and not isinstance(cut, bool) and int(cut) >= 1 for cut in cutoffs
    ):
        raise ConfigError(f"k must be a non-empty sequence of positive integers, such as (1, 5, 10), got {k!r}")
    return tuple(int(cut) for cut in cutoffs)


def has_surrogate(text: str) -> bool:
    """UTF-8 cannot encode an unpaired surrogate."""
    return _SURROGATE.search(text) is not None


def unsafe_name(name: object) -> str | None:
    """Return the reason why `name` is not a valid file name, or None."""
    if not isinstance(name, str):
        return f"it is a {type(name).__name__}, not a string"
    if not _SAFE_NAME.fullmatch(name) or ".." in name:
        return "use at most 100 letters, digits and _ . - with no '..' and no leading dot"
    return None


def one_line(text: object) -> str:
    return " ".join(str(text).split())


@cache
def warn_skipped(problem: str) -> None:
    """Warn once per message."""
    warnings.warn(f"{problem}; skipping this plug-in", UserWarning, stacklevel=3)


def suggestion(value: object, known: Iterable[object], *, otherwise: str = "") -> str:
    """Ignore case, hyphens and spaces."""
    words = {_plain(word): word for word in known if isinstance(word, str)}
    close = difflib.get_close_matches(_plain(value), words, n=1, cutoff=0.7) if isinstance(value, str) else []
    hint = f"did you mean {words[close[0]]!r}?" if close else otherwise
    return f"; {hint}" if hint else ""


def _plain(word: str) -> str:
    return re.sub(r"[-+ ]", "_", word.lower())


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    # Python integers are unbounded, but torch integers have at most 64 bits.
    return isinstance(value, float) or -(2**63) <= value < 2**63
