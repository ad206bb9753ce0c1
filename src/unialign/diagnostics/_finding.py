"""A finding, and how numbers are written in one: plain ASCII, so that every terminal shows it."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from unialign.diagnostics._statistics import Value

__all__ = [
    "SEVERITIES",
    "Code",
    "Finding",
    "Severity",
    "counted",
    "joined_words",
    "number",
    "percent",
    "rows_text",
    "share",
    "size",
    "span",
]

Code = Literal[
    "collapse", "collapsed", "constant", "duplicates", "few_items", "gap", "hubness", "ignored", "inf", "labels",
    "low_rank", "matched", "missing", "nan", "anisotropy", "no_overlap", "norm_outliers", "norm_range",
    "norm_scale", "norms", "not_aligned", "not_paired", "one_modality", "pairing", "random_pairs", "retrieval",
    "row_offset", "misaligned_block", "duplicate_modality", "modality_gap", "constant_columns", "undecidable", "uneven_retrieval",
    "values", "weak_retrieval", "widths", "zero_rows",
]  # fmt: skip
Severity = Literal["ok", "note", "warning", "problem"]
SEVERITIES: tuple[Severity, ...] = ("problem", "warning", "note", "ok")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        code: a short fixed name, such as "gap".
        severity: ok, note (worth knowing), warning (look into it), problem (results cannot be trusted).
        about: the modalities concerned; empty: all of them.
        text: what was found, with numbers.
        advice: what to try; "" where nothing need be done.
    """

    code: Code
    severity: Severity
    modalities: tuple[str, ...]
    text: str
    advice: str = ""

    @property
    def brief(self) -> str:
        """`gap(audio)`."""
        return f"{self.code}({','.join(self.modalities)})" if self.modalities else self.code


def percent(value: float) -> str:
    """`12.3 %`; small shares keep a digit."""
    if not math.isfinite(value):
        return "-"
    size = 100 * value
    digits = 1 if abs(size) >= 0.1 or size == 0 else 2 if abs(size) >= 0.01 else 4
    return f"{size:.{digits}f} %"


def size(value: float) -> str:
    """A length, which may be of any order."""
    return f"{value:.2g}" if math.isfinite(value) and value != 0 and not 1e-3 <= abs(value) < 1e5 else number(value)


def number(value: float) -> str:
    """A cosine, a distance, a rank: three digits, and more just below 1, where a collapse shows."""
    if not math.isfinite(value):
        return "-"
    if 0.99 < abs(value) < 1:
        return f"{value:.5f}"
    digits = 3 if abs(value) < 1 else 2 if abs(value) < 100 else 1 if abs(value) < 1000 else 0
    text = f"{value:,.{digits}f}"
    return text[1:] if text.startswith("-") and not text.strip("-0.,") else text


def span(value: Value, unit: Literal["percent", "number"] = "number") -> str:
    """`12.3 % (95 % interval 11.0 to 13.5)`."""
    if unit == "percent":
        return f"{percent(value.mean)} (95 % interval {100 * value.low:.1f} to {100 * value.high:.1f})"
    return f"{number(value.mean)} (95 % interval {number(value.low)} to {number(value.high)})"


def share(part: int, whole: int) -> str:
    """`12 of 1,000 rows (1.2 %)`."""
    return f"{part:,} of {whole:,} rows ({percent(part / whole if whole else 0.0)})"


def counted(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def rows_text(rows: Iterable[int], total: int) -> str:
    """`row 3` or `rows 3, 17, ...`."""
    shown = [f"{row:,}" for row in rows]
    more = ", ..." if total > len(shown) else ""
    return f"{'row' if total == 1 else 'first rows' if more else 'rows'} {', '.join(shown)}{more}"


def joined_words(words: Iterable[str]) -> str:
    found = list(words)
    return found[0] if len(found) == 1 else f"{', '.join(found[:-1])} and {found[-1]}" if found else ""
