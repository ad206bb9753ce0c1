"""Find quotes of CSV files that are not closed."""

from collections.abc import Iterable, Iterator, Sequence

__all__ = ["kept_lines", "open_quote"]


def kept_lines(lines: Iterable[str], kept: list[str]) -> Iterator[str]:
    """Yield the lines, and append each to `kept`, which the caller clears after each row."""
    for line in lines:
        kept.append(line)
        yield line


def open_quote(lines: Sequence[str], delimiter: str) -> int | None:
    """Return the index of the line of a row at which an unclosed quote opens, or None.

    As in the csv module, a quote opens only at the start of a cell, and "" inside quotes is a quote.
    """
    opened: int | None = None
    for place, line in enumerate(lines):
        start = 0
        while (quote := line.find('"', start)) >= 0:
            start = quote + 1
            if opened is None:
                if quote == 0 or line[quote - 1] == delimiter:
                    opened = place
            elif line[start : start + 1] == '"':
                start += 1
            else:
                opened = None
    return opened
