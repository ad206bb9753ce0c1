"""Draw bar charts with intervals, one per metric, and small charts of paired differences beside the verdict."""

import math
from collections.abc import Sequence

from markupsafe import Markup

from unialign.report._format import NumberFormat
from unialign.report._model import MetricComparison, MetricEstimate, MetricInfo
from unialign.report._svg import line, num, shortened, svg, tag, text

__all__ = ["bars", "difference_chart", "labeled_bars"]

WIDTH = 340.0
_ROW = 30.0
_LEFT = 92.0
_RIGHT = 54.0


def bars(
    key: str,
    metric: MetricInfo,
    fmt: NumberFormat,
    rows: Sequence[tuple[str, MetricEstimate]],
    *,
    floor: tuple[float, str] | None = None,
) -> Markup:
    """Draw bars of `rows` (label of the objective, estimate); `floor` is a reference value and its label."""
    ends = [v for _, e in rows for v in (e.mean, e.low, e.high) if math.isfinite(v)]
    ends += [floor[0]] if floor else []
    low, high = min([0.0, *ends]), max([0.0, *ends])
    unit = (WIDTH - _LEFT - _RIGHT) / max(high - low, 1e-12)
    zero = _LEFT - low * unit
    height = len(rows) * _ROW + 6 + (16 if floor else 0)
    parts = [line(zero, 2, zero, len(rows) * _ROW + 2, class_="axis")]
    for i, (label, estimate) in enumerate(rows):
        y = i * _ROW + 7
        parts.append(text(_LEFT - 8, y + 13, shortened(label, 13), text_anchor="end", class_="label"))
        parts.append(text(WIDTH - _RIGHT + 10, y + 13, fmt.number(estimate.mean), class_="value"))
        if not math.isfinite(estimate.mean):
            continue
        end = zero + estimate.mean * unit
        title = tag("title", f"{label}: {_described(fmt, estimate)}")
        box = {"x": min(zero, end), "width": max(abs(end - zero), 1.0), "y": y, "height": 18.0}
        parts.append(tag("rect", title, **box, rx=2, class_="bar own" if i == 0 else "bar"))
        if math.isfinite(estimate.low) and math.isfinite(estimate.high):
            parts.extend(_whisker(zero + estimate.low * unit, zero + estimate.high * unit, y + 9))
    if floor:
        x = zero + floor[0] * unit
        bottom = len(rows) * _ROW + 2
        parts.append(line(x, 2, x, bottom, class_="floor"))
        anchor = "end" if x > (WIDTH + _LEFT) / 2 else "start"
        parts.append(text(x, bottom + 14, floor[1], text_anchor=anchor, class_="label"))
    description = "; ".join(f"{label} {_described(fmt, estimate)}" for label, estimate in rows)
    return svg(key, WIDTH, height, metric.label, description, *parts)


def labeled_bars(key: str, title: str, fmt: NumberFormat, rows: Sequence[tuple[str, MetricEstimate]]) -> Markup:
    """Draw bars from 0 with the labels above them, for long labels."""
    top = max([1e-12, *(v for _, e in rows for v in (e.mean, e.high) if math.isfinite(v))])
    unit, tall = (WIDTH - _RIGHT - 2) / top, 36.0
    parts = []
    for i, (label, estimate) in enumerate(rows):
        y = i * tall
        parts.append(text(1, y + 12, shortened(label, 46), class_="label"))
        parts.append(text(WIDTH - _RIGHT + 10, y + 28, fmt.number(estimate.mean), class_="value"))
        if not math.isfinite(estimate.mean):
            continue
        name = tag("title", f"{label}: {_described(fmt, estimate)}")
        width = max(estimate.mean * unit, 1.0)
        parts.append(tag("rect", name, x=1, y=y + 17, width=width, height=14.0, rx=2, class_="bar own"))
        if math.isfinite(estimate.low) and math.isfinite(estimate.high):
            parts.extend(_whisker(1 + estimate.low * unit, 1 + estimate.high * unit, y + 24))
    description = "; ".join(f"{label} {_described(fmt, estimate)}" for label, estimate in rows)
    return svg(key, WIDTH, len(rows) * tall + 2, title, description, *parts)


def _whisker(x1: float, x2: float, y: float) -> list[Markup]:
    d = f"M{num(x1)} {num(y)}H{num(x2)}M{num(x1)} {num(y - 4)}v8M{num(x2)} {num(y - 4)}v8"
    # An outline in the background color keeps the whisker visible over the bar.
    return [tag("path", d=d, class_="halo"), tag("path", d=d, class_="whisker")]


def _described(fmt: NumberFormat, estimate: MetricEstimate) -> str:
    if math.isfinite(estimate.low) and math.isfinite(estimate.high):
        return f"{fmt.with_unit(estimate.mean)} ({fmt.number(estimate.low)} to {fmt.number(estimate.high)})"
    return fmt.with_unit(estimate.mean)


def difference_chart(comparison: MetricComparison, metric: MetricInfo, reach: float) -> Markup:
    """Draw a paired difference with its interval around zero; right is better."""
    width_px, tall, mid = 150.0, 22.0, 11.0
    sign = -1.0 if metric.higher_is_better is False else 1.0
    unit = (width_px / 2 - 6) / max(reach, 1e-12)
    parts = [line(width_px / 2, 1, width_px / 2, tall - 1, class_="zero")]
    if math.isfinite(comparison.low) and math.isfinite(comparison.high):
        ends = sorted(width_px / 2 + sign * v * unit for v in (comparison.low, comparison.high))
        parts.append(line(ends[0], mid, ends[1], mid, class_="span"))
    if math.isfinite(comparison.difference):
        parts.append(tag("circle", cx=width_px / 2 + sign * comparison.difference * unit, cy=mid, r=4.2, class_="dot"))
    return tag("svg", *parts, viewBox=f"0 0 {num(width_px)} {num(tall)}", aria_hidden="true", class_="difference")
