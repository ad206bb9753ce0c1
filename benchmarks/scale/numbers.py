"""Format numbers for tables."""

__all__ = ["duration", "number"]


def number(value: float) -> str:
    """Three digits at most, without an exponent."""
    if value >= 100:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}" if value >= 0.001 or value == 0 else f"{value:.1g}"


def duration(seconds: float) -> str:
    if seconds < 1:
        return f"{number(1000 * seconds)} ms"
    return f"{number(seconds)} s" if seconds < 3600 else f"{number(seconds / 3600)} h"
