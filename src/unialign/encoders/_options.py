"""Read the options of an encoder's name."""

from collections.abc import Callable, Mapping
from typing import Any

from unialign._checks import check_choice, suggestion
from unialign.encoders._names import EncoderName
from unialign.errors import ConfigError
from unialign.media import KINDS, Kind

__all__ = ["check_media", "choice", "integer", "number", "numbers", "read_options", "text"]

Option = tuple[Any, Callable[[str, str], Any]]


def read_options(spec: EncoderName, known: Mapping[str, Option]) -> dict[str, Any]:
    """Read the options of a name; `known` contains the default and the parser of each option."""
    unknown = [key for key in spec.options if key not in known]
    if unknown:
        expected = f"its options are {', '.join(known)}" if known else "it has no options"
        raise ConfigError(
            f"the encoder {str(spec)!r} has no option {unknown[0]!r}; {expected}{suggestion(unknown[0], known)}"
        )
    where = f"of the encoder {str(spec)!r}"
    return {
        key: parse(spec.options[key], f"option {key} {where}") if key in spec.options else default
        for key, (default, parse) in known.items()
    }


def integer(default: int | None, *, low: int = 1, high: int = 2**31 - 1) -> Option:
    def parse(value: str, what: str) -> int:
        if not value.isdecimal() or not value.isascii() or not low <= int(value) <= high:
            raise ConfigError(f"{what} must be an integer from {low} to {high}, got {value!r}")
        return int(value)

    return default, parse


def number(default: float | None, *, low: float, high: float) -> Option:
    def parse(value: str, what: str) -> float:
        try:
            found = float(value)
        except ValueError:
            found = float("nan")
        if not low <= found <= high:
            raise ConfigError(f"{what} must be a number from {low:g} to {high:g}, got {value!r}")
        return found

    return default, parse


def choice(default: str | None, allowed: tuple[str, ...]) -> Option:
    def parse(value: str, what: str) -> str:
        check_choice(what, value, allowed)
        return value

    return default, parse


def numbers(default: tuple[float, ...]) -> Option:
    """Return the parser of an option with as many numbers as the default, separated by commas."""

    def parse(value: str, what: str) -> tuple[float, ...]:
        try:
            found = tuple(map(float, value.split(",")))
        except ValueError:
            found = ()
        if len(found) != len(default):
            raise ConfigError(f"{what} must be {len(default)} numbers separated by commas, got {value!r}")
        return found

    return default, parse


def text(default: str | None) -> Option:
    return default, lambda value, what: value


def check_media(spec: EncoderName, media: Kind | None, allowed: tuple[Kind, ...]) -> Kind:
    if media is None:
        return allowed[0]
    check_choice("kind of media", media, KINDS)
    if media not in allowed:
        raise ConfigError(f"the encoder {str(spec)!r} encodes {' or '.join(allowed)}, not {media}")
    return media


_SPDX = {"apache-2.0": "Apache-2.0", "mit": "MIT", "bsd-2-clause": "BSD-2-Clause", "bsd-3-clause": "BSD-3-Clause"}


def as_spdx(name: str) -> str:
    """Return the SPDX spelling of a license of the Hugging Face Hub."""
    return _SPDX.get(name.lower(), name.upper() if name.lower().startswith("cc") else name)
