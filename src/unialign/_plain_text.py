"""Tables, counts and lists in plain text."""

from collections.abc import Iterable, Sequence


def table_lines(head: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    """Format left-aligned columns, separated by two spaces, with a rule below the header."""
    rows = [head, *body]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def count(number: int, one: str, many: str = "") -> str:
    """Format as `1 item` or `1,000 items`; `many` is the plural if it is irregular."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def join_words(words: Iterable[str]) -> str:
    """Join words as `a, b and c`."""
    found = list(words)
    return found[0] if len(found) == 1 else f"{', '.join(found[:-1])} and {found[-1]}" if found else ""
