"""Figures of studies as sheets of panels.

A sheet is a standalone SVG with fonts, background, and colors for light and dark mode, so that it looks the same on a
page, in the documentation and in a viewer.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from markupsafe import Markup

from unialign.report import DASH, color, group, line, num, polyline, shape, shortened, svg, tag, text, ticks

__all__ = ["Dot", "Mark", "Panel", "Point", "Series", "dots", "lines", "scatter", "sheet"]

WIDTH, HEIGHT = 340.0, 250.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 56.0, 14.0, 30.0, 40.0
_ROW = 19.0
_LETTER = 6.2  # This is the average width of a letter of a label.

_RULES = """
.plot{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
.plot text{fill:var(--ink);font-size:11px}.plot .soft{fill:var(--soft)}.plot .head{font-size:13px;font-weight:600}
.plot .ground{fill:var(--card)}.plot .rule{stroke:var(--rule)}.plot .axis{stroke:var(--soft)}
.plot .curve{fill:none;stroke:var(--c);stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round}
.plot .dashed{stroke-dasharray:5 4}.plot .band{fill:var(--c);fill-opacity:.16;stroke:none}
.plot .span{stroke:var(--c);stroke-width:2.2;stroke-linecap:round;stroke-opacity:.65}
.plot .mark{fill:var(--c);stroke:var(--card);stroke-width:.7}.plot .faint{fill-opacity:.75}
.plot .tile{fill:var(--c)}.plot .onto{fill:var(--card)}
"""


@dataclass(frozen=True)
class Point:
    x: float
    y: float
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True)
class Mark:
    label: str
    number: int
    dash: str = "solid"  # "solid", or "dashed" (without marks) for bounds and references


@dataclass(frozen=True)
class Series:
    mark: Mark
    points: Sequence[Point]


@dataclass(frozen=True)
class Dot:
    label: str
    value: float
    low: float = math.nan
    high: float = math.nan
    number: int = 0


@dataclass(frozen=True)
class Panel:
    width: float
    height: float
    body: Markup
    alternative: str


def lines(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    x_ticks: Sequence[float] | Mapping[float, str] | None = None,
    within: tuple[float, float] = (-math.inf, math.inf),
) -> Panel:
    """Clip the bands to `within`, the range of the quantity."""
    series = [Series(s.mark, [_cut(p, within) for p in s.points]) for s in series]
    finite = [p for s in series for p in s.points if math.isfinite(p.y)]
    xs = [p.x for p in finite] or [0.0, 1.0]
    ys = [v for p in finite for v in (p.y, p.low, p.high) if math.isfinite(v)] or [0.0, 1.0]
    axes = _Axes(_padded(min(xs), max(xs), 0.03), _padded(min(ys), max(ys), 0.06), HEIGHT)
    parts = [_head(title), *axes.frame(x_label, x_ticks)]
    for one in series:
        tint = color(one.mark.number)
        ribbon = [p for p in one.points if all(map(math.isfinite, (p.y, p.low, p.high)))]
        if len(ribbon) > 1:
            edge = [axes.at(p.x, p.high) for p in ribbon] + [axes.at(p.x, p.low) for p in reversed(ribbon)]
            parts.append(tag("path", d=polyline(edge) + "Z", class_=f"band {tint}"))
    for one in series:
        tint, dashed = color(one.mark.number), one.mark.dash == "dashed"
        d = polyline(axes.at(p.x, p.y) for p in one.points)
        name = tag("title", one.mark.label)
        parts.append(tag("path", name, d=d, class_=f"curve {tint}{' dashed' if dashed else ''}"))
        if not dashed:
            parts += [_mark(one.mark, *axes.at(p.x, p.y), 3) for p in one.points if math.isfinite(p.y)]
    ends = [f"{s.mark.label} ends at {s.points[-1].y:.3g}" for s in series if s.points]
    return Panel(WIDTH, HEIGHT, group(*parts), f"{title}: {'; '.join(ends)}")


def dots(
    title: str, rows: Sequence[Dot], *, reference: float | None = None, write: Callable[[float], str] | None = None
) -> Panel:
    write = write or (lambda value: f"{value:.3g}")
    ends = [v for d in rows for v in (d.value, d.low, d.high) if math.isfinite(v)]
    ends += [] if reference is None else [reference]
    low, high = _padded(min(ends, default=0.0), max(ends, default=1.0), 0.05)
    left = min(150.0, max((len(d.label) for d in rows), default=0) * _LETTER + 14)
    right = 48.0
    unit = (WIDTH - left - right) / (high - low)
    height = _TOP + len(rows) * _ROW + 24
    bottom = height - 20
    parts = [_head(title)]
    for value in ticks(low, high, 4):
        x = left + (value - low) * unit
        parts.append(line(x, _TOP - 4, x, bottom, class_="rule"))
        parts.append(text(x, bottom + 13, write(value), text_anchor="middle", class_="soft"))
    if reference is not None:
        x = left + (reference - low) * unit
        parts.append(line(x, _TOP - 4, x, bottom, class_="axis dashed"))
    for i, dot in enumerate(rows):
        y = _TOP + i * _ROW + _ROW / 2 - 2
        parts.append(text(left - 8, y + 4, shortened(dot.label, 25), text_anchor="end"))
        parts.append(text(WIDTH - right + 8, y + 4, write(dot.value) if math.isfinite(dot.value) else DASH))
        if not math.isfinite(dot.value):
            continue
        tint = color(dot.number)
        if math.isfinite(dot.low) and math.isfinite(dot.high):
            x1, x2 = (left + (v - low) * unit for v in (dot.low, dot.high))
            parts.append(line(x1, y, x2, y, class_=f"span {tint}"))
        name = tag("title", f"{dot.label}: {write(dot.value)}")
        parts.append(
            tag("path", name, d=shape(dot.number, left + (dot.value - low) * unit, y, 4), class_=f"mark {tint}")
        )
    values = [f"{d.label} {write(d.value)}" for d in rows if math.isfinite(d.value)]
    return Panel(WIDTH, height, group(*parts), f"{title}: {'; '.join(values)}")


def scatter(
    title: str, points: Mapping[Mark, Sequence[tuple[float, float]]], *, x_label: str, y_label: str, note: str = ""
) -> Panel:
    known = {m: [(x, y) for x, y in at if math.isfinite(x) and math.isfinite(y)] for m, at in points.items()}
    xs = [x for at in known.values() for x, _ in at] or [0.0, 1.0]
    ys = [y for at in known.values() for _, y in at] or [0.0, 1.0]
    axes = _Axes(_padded(min(xs), max(xs), 0.05), _padded(min(ys), max(ys), 0.05), HEIGHT)
    parts = [_head(title), *axes.frame(x_label, None)]
    parts.append(text(_LEFT, _TOP - 5, y_label, text_anchor="start", class_="soft"))
    for mark, at in known.items():
        name = tag("title", mark.label)
        marks = [
            tag("path", name, d=shape(mark.number, *axes.at(x, y), 3.4), class_=f"mark faint {color(mark.number)}")
            for x, y in at
        ]
        parts += marks
    if note:
        parts.append(text(WIDTH - _RIGHT, _TOP - 5, note, text_anchor="end", class_="soft"))
    return Panel(WIDTH, HEIGHT, group(*parts), f"{title}: {sum(map(len, known.values()))} points; {note}")


def sheet(key: str, title: str, panels: Sequence[Panel], *, columns: int = 2, legend: Sequence[Mark] = ()) -> Markup:
    """`key` must be unique within a page."""
    columns = max(1, min(columns, len(panels)))
    width = columns * WIDTH
    parts: list[Markup] = []
    y = 8.0
    for first in range(0, len(panels), columns):
        row = panels[first : first + columns]
        parts += [group(p.body, transform=f"translate({num(i * WIDTH)} {num(y)})") for i, p in enumerate(row)]
        y += max(p.height for p in row) + 10
    listed, y = _legend(legend, width, y)
    drawing = svg(
        key,
        width,
        y + 6,
        title,
        " ".join(f"{p.alternative}." for p in panels),
        tag("style", Markup(_style())),
        tag("rect", x=0, y=0, width=width, height=y + 6, rx=6, class_="ground"),
        *parts,
        *listed,
    )
    # Set a fixed size, which viewers of the standalone file require.
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" class="plot" width="{num(width)}" height="{num(y + 6)}"'
    return Markup(str(drawing).replace("<svg", opening, 1))


class _Axes:
    def __init__(self, x: tuple[float, float], y: tuple[float, float], height: float) -> None:
        self.x, self.y, self.height = x, y, height
        self.wide, self.tall = WIDTH - _LEFT - _RIGHT, height - _TOP - _BOTTOM

    def at(self, x: float, y: float) -> tuple[float, float]:
        (x1, x2), (y1, y2) = self.x, self.y
        if not (math.isfinite(x) and math.isfinite(y)):
            return math.nan, math.nan
        return _LEFT + self.wide * (x - x1) / (x2 - x1), _TOP + self.tall * (y2 - y) / (y2 - y1)

    def frame(self, x_label: str, x_ticks: Sequence[float] | Mapping[float, str] | None) -> list[Markup]:
        bottom = _TOP + self.tall
        if not isinstance(x_ticks, Mapping):
            x_ticks = {value: _short(value) for value in (ticks(*self.x, 5) if x_ticks is None else x_ticks)}
        parts = []
        for value in ticks(*self.y, 5):
            y = self.at(self.x[0], value)[1]
            parts.append(line(_LEFT, y, WIDTH - _RIGHT, y, class_="rule"))
            parts.append(text(_LEFT - 6, y + 4, _short(value), text_anchor="end", class_="soft"))
        for value, written in x_ticks.items():
            x = self.at(value, self.y[0])[0]
            parts.append(line(x, bottom, x, bottom + 4, class_="axis"))
            parts.append(text(x, bottom + 16, written, text_anchor="middle", class_="soft"))
        parts.append(line(_LEFT, bottom, WIDTH - _RIGHT, bottom, class_="axis"))
        parts.append(text(_LEFT + self.wide / 2, bottom + 31, x_label, text_anchor="middle", class_="soft"))
        return parts


def _head(title: str) -> Markup:
    return text(10, 12, title, class_="head")


def _mark(mark: Mark, x: float, y: float, radius: float) -> Markup:
    return tag("path", d=shape(mark.number, x, y, radius), class_=f"mark {color(mark.number)}")


def _legend(marks: Sequence[Mark], width: float, y: float) -> tuple[list[Markup], float]:
    parts, x = list[Markup](), 14.0
    for mark in marks:
        wide = 30 + len(mark.label) * _LETTER + 14
        if x > 14 and x + wide > width - 8:
            x, y = 14.0, y + 18
        dashed = " dashed" if mark.dash == "dashed" else ""
        parts.append(tag("path", d=f"M{num(x)} {num(y + 6)}h22", class_=f"curve {color(mark.number)}{dashed}"))
        if not dashed:
            parts.append(_mark(mark, x + 11, y + 6, 3.6))
        parts.append(text(x + 28, y + 10, mark.label))
        x += wide
    return parts, y + 22 if marks else y


def _cut(place: Point, within: tuple[float, float]) -> Point:
    low, high = (v if math.isnan(v) else min(max(v, within[0]), within[1]) for v in (place.low, place.high))
    return Point(place.x, place.y, low, high)


def _padded(low: float, high: float, fraction: float) -> tuple[float, float]:
    span = (high - low) or max(abs(high), 1.0) * 0.1
    return low - fraction * span, high + fraction * span


def _short(value: float) -> str:
    return f"{value:.4g}".replace("-", "−") if abs(value) > 1e-12 else "0"


@cache
def _style() -> str:
    page = files("unialign.report").joinpath("page.css").read_text(encoding="utf-8")
    light, dark = re.findall(r":root \{(.*?)\}", page, re.DOTALL)[:2]
    hues = re.findall(r"\.m\d \{[^}]*\}", page)
    kept = [" ".join(re.findall(r"--(?:card|ink|soft|rule|m\d): [^;]+;", block)) for block in (light, dark)]
    rules = "".join(f".plot {hue}" for hue in hues)
    return f".plot{{{kept[0]}}}@media (prefers-color-scheme:dark){{.plot{{{kept[1]}}}}}{rules}{_RULES}"
