"""Errors of the service as JSON: `{"error": {"code", "message", "field", "limit", "request_id"}}`."""

import json
from typing import Any

from unialign.errors import (
    ConfigError,
    DataError,
    MediaError,
    MissingDependencyError,
    NonFiniteError,
    ShapeError,
    UniAlignError,
)

__all__ = ["ApiError", "as_api_error", "error_body"]


class ApiError(Exception):
    """An expected error of a request.

    Attributes:
        status: HTTP status.
        code: short name of the cause.
        message: a readable sentence without paths and tracebacks.
        field: field of the request, or None.
        limit: the limit that was exceeded, or None.
        retry_after: seconds after which the request may be repeated, or None.
        close: whether the connection is closed, because the body was not read.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        field: str | None = None,
        limit: float | None = None,
        retry_after: int | None = None,
        close: bool = False,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.field, self.limit, self.retry_after, self.close = field, limit, retry_after, close


def error_body(error: ApiError, request_id: str) -> bytes:
    """Return the JSON of an error."""
    contents: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.field is not None:
        contents["field"] = error.field
    if error.limit is not None:
        contents["limit"] = error.limit
    contents["request_id"] = request_id
    return json.dumps({"error": contents}, ensure_ascii=False).encode()


_TOO_LARGE = {"too-many-pixels": "too_many_pixels", "too-long": "too_long", "too-large": "too_large"}


def as_api_error(error: UniAlignError) -> ApiError:
    """Return the error of the service for an error of the library."""
    message = str(error)
    if isinstance(error, MediaError):
        return ApiError(422, _TOO_LARGE.get(error.code, "broken_media"), error.detail)
    if isinstance(error, MissingDependencyError):
        return ApiError(409, "missing_dependency", message)
    if isinstance(error, DataError):
        # The message may contain paths of the server, so it is only logged.
        return ApiError(503, "index_damaged", "the index cannot be read; see the log of the service", retry_after=10)
    if isinstance(error, ShapeError | NonFiniteError):
        return ApiError(422, "bad_vector", message)
    if isinstance(error, ConfigError):
        return ApiError(422, _config_code(message), message)
    return ApiError(422, "bad_request", message)


def _config_code(message: str) -> str:
    if "no direction" in message:
        return "cancelled_out"
    if message.startswith(("filter", "the filter", "a filter")):
        return "bad_filter"
    return "bad_request"
