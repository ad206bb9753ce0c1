"""Bar charts with intervals, and small charts of paired differences."""

import math
from collections.abc import Sequence

from markupsafe import Markup

from unialign.report._format import NumberFormat
from unialign.report._model import MetricComparison, MetricEstimate, MetricInfo
from unialign.report._svg import line, num, shortened, svg, tag, text

WIDTH = 340.0
_ROW, _TALL_ROW = 30.0, 36.0
_LEFT, _RIGHT = 92.0, 54.0

BarRows = Sequence[tuple[str, MetricEstimate]]


def bars(key: str, title: str, fmt: NumberFormat, rows: BarRows, *, floor: tuple[float, str] | None = None) -> Markup:
    """Draw a bar chart with intervals; `floor` is a reference value with a label."""
    ends = [v for _, e in rows for v in (e.mean, e.low, e.high) if math.isfinite(v)]
    ends += [floor[0]] if floor else []
    low, high = min([0.0, *ends]), max([0.0, *ends])
    unit = (WIDTH - _LEFT - _RIGHT) / max(high - low, 1e-12)
    zero, bottom = _LEFT - low * unit, len(rows) * _ROW + 2
    parts = [line(zero, 2, zero, bottom, class_="axis")]
    for i, row in enumerate(rows):
        y = i * _ROW + 7
        parts.append(text(_LEFT - 8, y + 13, shortened(row[0], 13), text_anchor="end", class_="label"))
        parts += _bar(fmt, row, zero, unit, y, 18, "bar accent" if i == 0 else "bar")
    if floor:
        x = zero + floor[0] * unit
        parts.append(line(x, 2, x, bottom, class_="floor"))
        anchor = "end" if x > (WIDTH + _LEFT) / 2 else "start"
        parts.append(text(x, bottom + 14, floor[1], text_anchor=anchor, class_="label"))
    return svg(key, WIDTH, bottom + 4 + (16 if floor else 0), title, _description(fmt, rows), *parts)


def labeled_bars(key: str, title: str, fmt: NumberFormat, rows: BarRows) -> Markup:
    """Draw a bar chart with the labels above the bars, which leaves room for long labels."""
    top = max([1e-12, *(v for _, e in rows for v in (e.mean, e.high) if math.isfinite(v))])
    unit, parts = (WIDTH - _RIGHT - 2) / top, []
    for i, row in enumerate(rows):
        parts.append(text(1, i * _TALL_ROW + 12, shortened(row[0], 46), class_="label"))
        parts += _bar(fmt, row, 1, unit, i * _TALL_ROW + 17, 14, "bar accent")
    return svg(key, WIDTH, len(rows) * _TALL_ROW + 2, title, _description(fmt, rows), *parts)


def _bar(
    fmt: NumberFormat, row: tuple[str, MetricEstimate], zero: float, unit: float, y: float, height: float, tint: str
) -> list[Markup]:
    (label, estimate), middle = row, y + height / 2
    parts = [text(WIDTH - _RIGHT + 10, middle + 4, fmt.number(estimate.mean), class_="value")]
    if math.isfinite(estimate.mean):
        end = zero + estimate.mean * unit
        name = tag("title", f"{label}: {_described(fmt, estimate)}")
        box = {"x": min(zero, end), "y": y, "width": max(abs(end - zero), 1.0), "height": height}
        parts.append(tag("rect", name, **box, rx=2, class_=tint))
        if estimate.has_interval:
            x1, x2 = zero + estimate.low * unit, zero + estimate.high * unit
            d = f"M{num(x1)} {num(middle)}H{num(x2)}M{num(x1)} {num(middle - 4)}v8M{num(x2)} {num(middle - 4)}v8"
            # Outline the whisker in the background color, so that the whisker is visible on the bar.
            parts += [tag("path", d=d, class_="halo"), tag("path", d=d, class_="whisker")]
    return parts


def _description(fmt: NumberFormat, rows: BarRows) -> str:
    return "; ".join(f"{label} {_described(fmt, estimate)}" for label, estimate in rows)


def _described(fmt: NumberFormat, estimate: MetricEstimate) -> str:
    interval = f" ({fmt.interval(estimate.low, estimate.high)})" if estimate.has_interval else ""
    return fmt.with_unit(estimate.mean) + interval


def difference_chart(comparison: MetricComparison, metric: MetricInfo, reach: float) -> Markup:
    """Draw a difference with its interval; better values are on the right."""
    width, height, middle = 150.0, 22.0, 11.0
    sign = -1.0 if metric.higher_is_better is False else 1.0
    center, unit = width / 2, sign * (width / 2 - 6) / max(reach, 1e-12)
    parts = [line(center, 1, center, height - 1, class_="zero")]
    if math.isfinite(comparison.low) and math.isfinite(comparison.high):
        x1, x2 = sorted(center + v * unit for v in (comparison.low, comparison.high))
        parts.append(line(x1, middle, x2, middle, class_="span"))
    if math.isfinite(comparison.difference):
        parts.append(tag("circle", cx=center + comparison.difference * unit, cy=middle, r=4.2, class_="dot"))
    return tag("svg", *parts, viewBox=f"0 0 {num(width)} {num(height)}", aria_hidden="true", class_="difference")
