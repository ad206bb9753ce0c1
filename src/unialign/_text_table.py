"""Plain-text tables."""

from collections.abc import Iterable, Sequence

__all__ = ["table_lines"]


def table_lines(head: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    """Format left-aligned columns, separated by two spaces, with a rule below the header."""
    rows = [head, *body]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
