"""Write canonical JSON with checksums; non-finite numbers become null."""

import json
import math
from collections.abc import Mapping
from typing import Any

from unialign.io._files import digest

CHECKSUM = "checksum"


def canonical_json(value: Any, *, sort_keys: bool = True) -> bytes:
    """Return JSON in ASCII without spaces; pass `sort_keys=False` if the order of the keys matters."""
    return json.dumps(value, sort_keys=sort_keys, separators=(",", ":"), allow_nan=False).encode("ascii")


def add_checksum(body: Mapping[str, Any], *, sort_keys: bool) -> dict[str, Any]:
    return {**body, CHECKSUM: _checksum(body, sort_keys)}


def is_unchanged(body: Mapping[str, Any], *, sort_keys: bool) -> bool:
    try:
        return bool(body.get(CHECKSUM) == _checksum(body, sort_keys))
    except ValueError:  # the parser accepts NaN, but NaN is never written
        return False


def finite(value: Any) -> Any:
    """Replace NaN and infinity by None."""
    if isinstance(value, Mapping):
        return {str(key): finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _checksum(body: Mapping[str, Any], sort_keys: bool) -> str:
    rest = {key: value for key, value in body.items() if key != CHECKSUM}
    return digest(canonical_json(rest, sort_keys=sort_keys))
