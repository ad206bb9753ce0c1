"""JSON as this package writes it: one spelling to take checksums of, seals, and null for what it has no words for."""

import json
import math
from collections.abc import Mapping
from typing import Any

from unialign.io._files import digest

__all__ = ["canonical_json", "finite", "is_sealed", "seal_of"]

SEAL = "seal"


def canonical_json(value: Any, *, sort_keys: bool = True) -> bytes:
    """One spelling of a JSON value: no blanks, ASCII, keys sorted. TypeError or ValueError for what is none.

    Args:
        sort_keys: False where the order of the keys has a meaning.
    """
    return json.dumps(value, sort_keys=sort_keys, separators=(",", ":"), allow_nan=False).encode("ascii")


def seal_of(body: Mapping[str, Any], *, sort_keys: bool) -> str:
    """The checksum that goes into an object under `SEAL`; it covers everything else in it."""
    return digest(canonical_json({key: value for key, value in body.items() if key != SEAL}, sort_keys=sort_keys))


def is_sealed(body: Mapping[str, Any], *, sort_keys: bool) -> bool:
    """Whether an object that was read is as it was sealed."""
    try:
        return bool(body.get(SEAL) == seal_of(body, sort_keys=sort_keys))
    except ValueError:  # the parser takes NaN, which was never written
        return False


def finite(value: Any) -> Any:
    """The value with null in the place of NaN and infinity, string keys, and lists for tuples."""
    if isinstance(value, Mapping):
        return {str(key): finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
