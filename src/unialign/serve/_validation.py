"""Errors of validated bodies as errors of the service."""

from collections.abc import Mapping, Sequence
from typing import Any

from unialign.serve._errors import ApiError

__all__ = ["validation_error"]


def validation_error(errors: Sequence[Mapping[str, Any]]) -> ApiError:
    """Return the first error of a body: 400 for malformed JSON, else 422 with the field."""
    first = errors[0] if errors else {}
    kind = str(first.get("type", ""))
    if kind == "json_invalid":
        return ApiError(400, "malformed", "the body is not valid JSON")
    place = [str(step) for step in first.get("loc", ()) if step != "body"]
    field = ".".join(place)[:200]
    message = str(first.get("msg", "the request is invalid")).removeprefix("Value error, ")
    if kind == "extra_forbidden":
        return ApiError(422, "unknown_field", f"unknown field {place[-1][:100]!r}", field=field)
    if kind == "missing" and not place:
        return ApiError(400, "malformed", "the body is missing")
    return ApiError(422, "bad_request", message[:500], field=field or None)
