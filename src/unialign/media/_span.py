"""Spans of time in audio and videos."""

__all__ = ["Span", "shortest"]

# Start and end in seconds, or None for all.
Span = tuple[float, float] | None


def shortest(span: Span, seconds: float | None) -> float | None:
    """Return the duration to read; None for all."""
    given = [value for value in (span and span[1] - span[0], seconds) if value is not None]
    return min(given, default=None)
