"""Format numbers with the same number of decimals for all values of a metric."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

DASH = "–"


@dataclass(frozen=True)
class NumberFormat:
    percent: bool
    decimals: int

    def number(self, value: float) -> str:
        return _written(value * (100 if self.percent else 1), self.decimals) if math.isfinite(value) else DASH

    def with_unit(self, value: float) -> str:
        return self.number(value) + (" %" if self.percent and math.isfinite(value) else "")

    def interval(self, low: float, high: float) -> str:
        """Return `1.1 to 3.5`, or "" if a bound is not finite."""
        known = math.isfinite(low) and math.isfinite(high)
        return f"{self.number(low)} to {self.number(high)}" if known else ""

    def interval_with_unit(self, low: float, high: float) -> str:
        """Return `1.1 to 3.5 %`."""
        text = self.interval(low, high)
        return text + (" %" if self.percent and text else "")

    def magnitude(self, value: float) -> str:
        """Return the absolute value, with one more decimal if it would round to 0."""
        if not math.isfinite(value):
            return DASH
        size = abs(value) * (100 if self.percent else 1)
        rounds_to_0 = 0.05 * 10**-self.decimals <= size < 0.5 * 10**-self.decimals
        return _written(size, self.decimals + rounds_to_0)


def number_format(values: Iterable[float], *, unit: str) -> NumberFormat:
    """Return the format of a column; the largest value determines the number of decimals."""
    if unit == "percent":
        return NumberFormat(percent=True, decimals=1)
    top = max((abs(v) for v in values if math.isfinite(v)), default=0.0)
    return NumberFormat(percent=False, decimals=3 if top < 1 else 2 if top < 10 else 1 if top < 1000 else 0)


def _written(value: float, decimals: int) -> str:
    text = f"{value:,.{decimals}f}"
    if text.startswith("-"):  # use a typographic minus sign, and no sign before 0
        text = text[1:] if not text.strip("-0.,") else "−" + text[1:]
    return text


def p_value(p: float) -> str:
    if not math.isfinite(p):
        return ""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"
