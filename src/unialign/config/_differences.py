"""Find the settings that differ between two configurations."""

from collections.abc import Mapping
from typing import Any

_MISSING = object()


def differing_settings(
    there: Mapping[str, Any], here: Mapping[str, Any], prefix: str = ""
) -> dict[str, tuple[str, str]]:
    """Map the name of each differing setting, such as `entries.gram.train.lr`, to both values."""
    found: dict[str, tuple[str, str]] = {}
    for key in dict.fromkeys([*there, *here]):
        old, new = there.get(key, _MISSING), here.get(key, _MISSING)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found |= differing_settings(old, new, f"{prefix}{key}.")
        elif old != new:
            found[f"{prefix}{key}"] = (_text(old), _text(new))
    return found


def _text(value: object) -> str:
    if value is _MISSING:
        return "missing"
    return "present" if isinstance(value, Mapping) else repr(value)
