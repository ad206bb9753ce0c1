"""Draw a grid of numbers as a panel of colored tiles."""

import math
from collections.abc import Callable, Sequence

from research.pages._plot import WIDTH, Panel
from unialign.report import color, group, num, shortened, tag, text

__all__ = ["tiles"]

_TOP, _TALL, _BELOW = 30.0, 26.0, 36.0
_LETTER, _LONGEST = 5.8, 18
# At this opacity, dark and light text are equally legible.
_LIGHT_TEXT_FROM = 0.6


def tiles(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float]],
    *,
    row_label: str = "",
    column_label: str = "",
    write: Callable[[float], str] | None = None,
    number: int = 0,
) -> Panel:
    write = write or (lambda value: f"{value:.3g}")
    known = [v for row in values for v in row if math.isfinite(v)]
    low, high = min(known, default=0.0), max(known, default=1.0)
    left = max((len(shortened(row, _LONGEST)) for row in rows), default=0) * _LETTER + 22
    side = (WIDTH - left - 12) / max(1, len(columns))
    bottom = _TOP + len(rows) * _TALL
    parts = [text(10, 12, title, class_="head")]
    if row_label:
        parts.append(text(WIDTH - 12, 12, f"rows: {row_label}", text_anchor="end", class_="soft"))
    for i, row in enumerate(rows):
        y = _TOP + i * _TALL
        parts.append(text(left - 6, y + _TALL / 2 + 4, shortened(row, _LONGEST), text_anchor="end"))
        for j, value in enumerate(values[i]):
            if not math.isfinite(value):
                continue
            fraction = (value - low) / (high - low) if high > low else 0.0
            x, number_text = left + j * side, write(value)
            tile = tag(
                "rect",
                tag("title", f"{row}, {columns[j]}: {number_text}"),
                x=x + 1,
                y=y + 1,
                width=side - 2,
                height=_TALL - 2,
                rx=3,
                class_=f"tile {color(number)}",
                fill_opacity=num(0.06 + 0.9 * fraction),
            )
            ink = "onto" if fraction > _LIGHT_TEXT_FROM else None
            parts.append(
                group(tile, text(x + side / 2, y + _TALL / 2 + 4, number_text, text_anchor="middle", class_=ink))
            )
    for j, column in enumerate(columns):
        fits = max(3, int(side / _LETTER))
        parts.append(text(left + (j + 0.5) * side, bottom + 14, shortened(column, fits), text_anchor="middle"))
    if column_label:
        parts.append(
            text(left + (WIDTH - left - 12) / 2, bottom + 30, column_label, text_anchor="middle", class_="soft")
        )
    alternative = f"{title}: from {write(low)} to {write(high)}" if known else f"{title}: no values"
    return Panel(WIDTH, bottom + _BELOW, group(*parts), alternative)
