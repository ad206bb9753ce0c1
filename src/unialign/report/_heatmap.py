"""Heat maps of a retrieval metric by query and retrieved modality."""

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from unialign.report._format import NumberFormat
from unialign.report._model import DataInfo, Run
from unialign.report._svg import group, rect, shortened, svg, tag, text

WIDTH = 380.0
JOINT = "all others"
_LETTER = 5.9  # average width of a letter in a label
_LONGEST = 20
_NARROW = 8  # number of columns above which labels are steeper and on a single line
# Fraction of full color at which light and dark text have the same contrast, in light and dark mode.
_LIGHT_TEXT_FROM = 0.73


def mean_directions(runs: Sequence[Run], metric: str, modalities: Sequence[str]) -> dict[tuple[str, str], float]:
    sums: dict[tuple[str, str], list[float]] = {}
    for run in runs:
        for name, numbers in run.directions.items():
            pair = direction_pair(name, modalities)
            if pair is not None and math.isfinite(numbers.get(metric, math.nan)):
                sums.setdefault(pair, []).append(numbers[metric])
    return {pair: math.fsum(values) / len(values) for pair, values in sums.items()}


def direction_pair(name: str, modalities: Sequence[str]) -> tuple[str, str] | None:
    """Return query and answer of `a->b`; None unless each side is one modality or all others (JOINT)."""
    for answer in modalities:
        query = name.removesuffix(f"->{answer}")
        if query == name:
            continue
        if query in modalities:
            return query, answer
        # The order of the other modalities does not matter.
        if sorted(query.split("+")) == sorted(m for m in modalities if m != answer):
            return JOINT, answer
    return None


def heatmap(
    key: str, label: str, metric: str, data: DataInfo, values: Mapping[tuple[str, str], float], top: float
) -> Markup:
    """Draw a heat map; `top` is the value shown in full color."""
    columns = list(data.modalities)
    rows = [*columns, JOINT] if any(query == JOINT for query, _ in values) else columns
    fmt = NumberFormat(percent=True, decimals=1 if len(columns) <= 6 else 0)
    # Narrow columns need steeper labels; the labels of the last columns extend beyond the right edge.
    narrow = len(columns) > _NARROW
    turn, lines = (math.radians(62), 1) if narrow else (math.radians(38), 2)
    lengths = [_length(data, c, lines=lines) for c in columns]
    left = max(_length(data, row, lines=2) for row in rows) + 14
    above = max(lengths) * math.sin(turn) + (14 if narrow else 24)
    covered = (WIDTH - left) / (len(columns) + 1)
    out = max(n * math.cos(turn) - covered * (len(columns) - 0.5 - j) for j, n in enumerate(lengths))
    side = (WIDTH - left - max(4.0, out)) / len(columns)
    tall = min(side, 40.0)
    gap = 7.0  # distance between the row of joint queries and the rows above
    parts = []
    for j, answer in enumerate(columns):
        x, y = left + (j + 0.5) * side, above - 7
        around = f"rotate({-math.degrees(turn):.0f} {x:.1f} {y:.1f})"
        name = _named(data, answer, x, lines=lines)
        parts.append(text(x + (3 if narrow else 0), y, name, transform=around, class_="label"))
    for i, query in enumerate(rows):
        y = above + i * tall + (gap if query == JOINT else 0)
        middle = y + tall / 2 + (-1 if query in data.synthetic else 3.8)
        parts.append(text(left - 6, middle, _named(data, query, left - 6, lines=2), text_anchor="end", class_="label"))
        for j, answer in enumerate(columns):
            value = values.get((query, answer), math.nan)
            parts.append(_cell(left + j * side, y, side, tall, value, top, fmt, f"{query} → {answer}: {metric}"))
    height = above + len(rows) * tall + (gap if JOINT in rows else 0) + 2
    description = f"Rows: query modality; columns: answer modality; {fmt.with_unit(0)} to {fmt.with_unit(top)}."
    return svg(key, WIDTH, height, f"{metric} by direction, {label}", description, *parts)


def _label(data: DataInfo, modality: str, *, lines: int) -> tuple[str, bool]:
    """Return the label, and whether the mark "synthetic" is on a second line."""
    two_lines = lines == 2 and modality in data.synthetic
    return shortened(modality if two_lines else data.display_name(modality), _LONGEST), two_lines


def _length(data: DataInfo, modality: str, *, lines: int) -> float:
    name, two_lines = _label(data, modality, lines=lines)
    return max(len(name), 8 if two_lines else 0) * _LETTER


def _named(data: DataInfo, modality: str, x: float, *, lines: int) -> Markup:
    name, two_lines = _label(data, modality, lines=lines)
    mark = tag("tspan", "synthetic", x=x, dy=10, class_="minor") if two_lines else ""
    return tag("title", data.display_name(modality)) + tag("tspan", name) + mark


def _cell(
    x: float, y: float, side: float, tall: float, value: float, top: float, fmt: NumberFormat, name: str
) -> Markup:
    box = (x + 1, y + 1, side - 2, tall - 2)
    if not math.isfinite(value):
        return rect(*box, rx=3, class_="missing")
    fraction = value / top if top > 0 else 0.0
    style = "cell-value strong" if fraction > _LIGHT_TEXT_FROM else "cell-value"
    return group(
        tag("title", f"{name} {fmt.with_unit(value)}"),
        rect(*box, rx=3, class_="heat", fill_opacity=_opacity(fraction)),
        text(x + side / 2, y + tall / 2 + 3.8, fmt.number(value), text_anchor="middle", class_=style),
    )


def _opacity(fraction: float) -> float:
    """Return an opacity that works on light and dark backgrounds."""
    return 0.06 + 0.94 * fraction


def scale_bar(top: float, metric: str) -> Markup:
    boxes = [rect(60 + i * 5.0, 4, 5.4, 10, class_="heat", fill_opacity=_opacity(i / 39)) for i in range(40)]
    fmt = NumberFormat(percent=True, decimals=0 if top >= 0.1 else 1)
    low = text(54, 13, fmt.with_unit(0), text_anchor="end", class_="label")
    high = text(266, 13, f"{fmt.with_unit(top)} {metric}", class_="label")
    return tag("svg", low, *boxes, high, viewBox="0 0 380 20", aria_hidden="true")
