"""Charts of trials: one metric by trial, and pairs of metrics."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from markupsafe import Markup

from unialign.report._format import NumberFormat
from unialign.report._svg import line, num, shape, svg, tag, text, ticks

_WIDTH, _HEIGHT = 420.0, 300.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 12.0, 12.0, 40.0
# Kind -> number of the shape and radius, in the order of drawing.
_MARKS = {
    "pruned": (6, 2.6),
    "trial": (0, 3.0),
    "front": (0, 4.2),
    "shipped": (2, 3.6),
    "default": (4, 5.5),
    "chosen": (7, 7.0),
}


class Point(NamedTuple):
    """A trial in a chart."""

    x: float
    y: float
    kind: str
    title: str


class _Axes:
    def __init__(self, x: tuple[float, float], y: tuple[float, float]) -> None:
        self.x, self.y = x, y

    def place(self, x: float, y: float) -> tuple[float, float]:
        wide, tall = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
        (x0, x1), (y0, y1) = self.x, self.y
        return _LEFT + wide * (x - x0) / (x1 - x0), _TOP + tall * (y1 - y) / (y1 - y0)


def mark(kind: str) -> Markup:
    """Return the mark of a legend."""
    form, radius = _MARKS[kind]
    return tag(
        "svg", tag("path", d=shape(form, 8, 8, radius), class_=f"trial-{kind}"), viewBox="0 0 16 16", class_="key"
    )


def scatter(
    key: str, labels: tuple[str, str], points: Sequence[Point], formats: tuple[NumberFormat, NumberFormat]
) -> Markup:
    """Higher values are on the right and at the top. Far trials are drawn at the edge."""
    drawn = [p for p in points if math.isfinite(p.x) and math.isfinite(p.y)]
    axes = _Axes(_range([p.x for p in drawn]), _range([p.y for p in drawn]))
    parts = _grid(axes, labels, formats)
    parts += _marks(
        axes, drawn, lambda p: f"{labels[0]} {formats[0].with_unit(p.x)}, {labels[1]} {formats[1].with_unit(p.y)}"
    )
    return svg(key, _WIDTH, _HEIGHT, f"{labels[0]} and {labels[1]}", _description(drawn, formats[1]), *parts)


def order_chart(key: str, label: str, points: Sequence[Point], fmt: NumberFormat, *, lower_is_better: bool) -> Markup:
    """One metric in the order of the trials, with the best value so far."""
    drawn = [p for p in points if math.isfinite(p.y)]
    axes = _Axes((-1.0, max(1.0, max((p.x for p in drawn), default=1.0)) + 1), _range([p.y for p in drawn]))
    parts = _grid(axes, ("trial", label), (NumberFormat(percent=False, decimals=0), fmt))
    best, path = math.nan, []
    for point in drawn:
        if point.kind == "pruned":
            continue
        is_better = not math.isfinite(best) or (point.y < best if lower_is_better else point.y > best)
        if is_better:
            if math.isfinite(best):
                path.append(axes.place(point.x, best))
            best = point.y
            path.append(axes.place(point.x, best))
    if path:
        path.append((axes.place(axes.x[1], 0)[0], path[-1][1]))
        d = "M" + "L".join(f"{num(x)} {num(y)}" for x, y in path)
        parts.append(tag("path", d=d, class_="curve accent"))
    parts += _marks(axes, drawn, lambda p: f"{label} {fmt.with_unit(p.y)}")
    return svg(key, _WIDTH, _HEIGHT, f"{label} by trial", _description(drawn, fmt), *parts)


def _marks(axes: _Axes, points: Sequence[Point], words: Callable[[Point], str]) -> list[Markup]:
    order = list(_MARKS)
    parts = []
    for point in sorted(points, key=lambda p: order.index(p.kind)):
        form, radius = _MARKS[point.kind]
        x, y = (min(max(v, low), high) for v, (low, high) in zip((point.x, point.y), (axes.x, axes.y), strict=True))
        title = tag("title", f"{point.title}: {words(point)}")
        parts.append(tag("path", title, d=shape(form, *axes.place(x, y), radius), class_=f"trial-{point.kind}"))
    return parts


def _grid(axes: _Axes, labels: tuple[str, str], formats: tuple[NumberFormat, NumberFormat]) -> list[Markup]:
    parts = []
    for value in ticks(*axes.y, 5):
        y = axes.place(axes.x[0], value)[1]
        parts.append(line(_LEFT, y, _WIDTH - _RIGHT, y, class_="grid"))
        parts.append(text(_LEFT - 5, y + 3.5, formats[1].number(value), text_anchor="end", class_="label"))
    for value in ticks(*axes.x, 5):
        x = axes.place(value, axes.y[0])[0]
        parts.append(line(x, _TOP, x, _HEIGHT - _BOTTOM, class_="grid"))
        parts.append(text(x, _HEIGHT - _BOTTOM + 14, formats[0].number(value), text_anchor="middle", class_="label"))
    units = [", %" if fmt.percent else "" for fmt in formats]
    parts.append(text((_LEFT + _WIDTH) / 2, _HEIGHT - 8, labels[0] + units[0], text_anchor="middle", class_="label"))
    turned = f"rotate(-90 10 {num((_TOP + _HEIGHT - _BOTTOM) / 2)})"
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    parts.append(text(10, middle, labels[1] + units[1], text_anchor="middle", class_="label", transform=turned))
    return parts


def _range(values: Sequence[float]) -> tuple[float, float]:
    """The interval of the upper three quarters of the values with a margin, so that bad trials do not flatten it."""
    if not values:
        return 0.0, 1.0
    ordered = sorted(values)
    low, high = ordered[len(ordered) // 8], ordered[-1]
    margin = max(0.06 * (high - low), 1e-3 * max(abs(high), 1e-6))
    return low - margin, high + margin


def _description(points: Sequence[Point], fmt: NumberFormat) -> str:
    shown = [p for p in points if p.kind in ("chosen", "default")]
    return f"{len(points)} trials; " + "; ".join(f"{p.kind}: {fmt.with_unit(p.y)}" for p in shown)
