"""Format numbers and lists in ASCII, which every terminal can display."""

import math
import string
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from unialign._plain_text import join_words


def percent(fraction: float) -> str:
    """Format a percentage, with enough digits that values near 0 and 1 are not shown as `0 %` or `100 %`."""
    if not math.isfinite(fraction):
        return "-"
    value = 100 * fraction
    digits = 1 if abs(value) >= 0.1 or value == 0 else 2 if abs(value) >= 0.01 else 4
    # Do not round values below 100 % to 100 %.
    while f"{value:.{digits}f}" == f"{100:.{digits}f}" and value < 100 and digits < 4:
        digits += 1
    return f"{value:.{digits}f} %"


def percent_interval(estimate: Any) -> str:
    return f"{percent(estimate.mean)} (95 % interval {100 * estimate.low:.1f} to {100 * estimate.high:.1f})"


def number(value: float) -> str:
    """Format a number with up to three decimals, or five just below 1, where a collapse would be rounded away."""
    if not math.isfinite(value):
        return "-"
    if 0.99 < abs(value) < 1:
        return f"{value:.5f}"
    digits = 3 if abs(value) < 1 else 2 if abs(value) < 100 else 1 if abs(value) < 1000 else 0
    text = f"{value:,.{digits}f}"
    return text[1:] if text.startswith("-") and not text.strip("-0.,") else text


def factor(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "-"


def size(value: float) -> str:
    return f"{value:.2g}" if math.isfinite(value) and value != 0 and not 1e-3 <= abs(value) < 1e5 else number(value)


def at_most(words: Iterable[str], limit: int = 8) -> list[str]:
    """Return the first words; if words were left out, the last element states how many."""
    listed = list(words)
    more = len(listed) - limit
    return listed if more <= 0 else [*listed[:limit], f"{more:,} more"]


def row_list(rows: Iterable[int], total: int) -> str:
    shown = [f"{row:,}" for row in rows]
    more = ", ..." if total > len(shown) else ""
    return f"{'row' if total == 1 else 'first rows' if more else 'rows'} {', '.join(shown)}{more}"


def pair_list(pairs: Iterable[tuple[str, str]]) -> str:
    """Return at most six pairs, such as `a and b, or c and d`, and the number of remaining pairs."""
    return ", or ".join(at_most((f"{a} and {b}" for a, b in pairs), 6))


def rows_of(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,} rows ({percent(part / whole if whole else 0.0)})"


class _Formatter(string.Formatter):
    specs: Mapping[str, Callable[[Any], str]] = {
        "percent": percent,
        "number": number,
        "size": size,
        "factor": factor,
        "factor_interval": lambda e: f"{factor(e.mean)} (95 % interval {factor(e.low)} to {factor(e.high)})",
        "interval": lambda e: f"{number(e.mean)} (95 % interval {number(e.low)} to {number(e.high)})",
        "percent_interval": percent_interval,
        "words": join_words,
    }

    def format_field(self, value: Any, format_spec: str) -> str:
        found: str = self.specs[format_spec](value) if format_spec in self.specs else format(value, format_spec)
        return found


def fill(template: str, values: Mapping[str, Any]) -> str:
    """Fill a format string; besides Python's own specs, `{x:percent}`, `number`, `size`, `factor`, `interval` (of an
    estimate), `percent_interval`, `factor_interval` and `words` (of a list) are supported."""
    return _Formatter().vformat(template, (), values)
