"""Training curves: the total loss of every seed, then the loss terms of one seed, grouped by family."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from markupsafe import Markup

from unialign.report._folder import LogLine
from unialign.report._format import number_format
from unialign.report._projection import spread
from unialign.report._svg import color, line, polyline, shape, svg, tag, text, ticks

WIDTH, HEIGHT = 260.0, 170.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 10.0, 10.0, 24.0
_MOST_STEPS = 240


class Curve(NamedTuple):
    name: str
    color: str  # CSS class
    mark: int | None  # index of the modality that sets the shape of the end mark
    points: Sequence[tuple[int, float]]


class CurvePanel(NamedTuple):
    title: str
    curves: Sequence[Curve]


def panels(logs: Mapping[int, Sequence[LogLine]], modalities: Sequence[str]) -> list[CurvePanel]:
    """Return the panels of the total loss and of each family of terms (the part of the name before the slash)."""
    seeds = sorted(logs)
    tints = {seed: "accent" if seed == seeds[0] else "other" for seed in seeds}
    loss = [
        Curve(f"seed {s}", tints[s], None, _series((entry.step, entry.loss) for entry in logs[s]))
        for s in reversed(seeds)
    ]
    found = [CurvePanel("total loss", loss)]
    shown = logs[seeds[0]]
    families: dict[str, list[str]] = {}
    for name in dict.fromkeys(term for entry in shown for term in entry.terms):
        families.setdefault(name.split("/", 1)[0], []).append(name)
    for family, names in families.items():
        curves = []
        for name in names:
            mark = _modality(name, names, modalities)
            tint = "accent" if len(names) == 1 else "other" if mark is None else color(mark)
            points = _series((entry.step, entry.terms.get(name, math.nan)) for entry in shown)
            curves.append(Curve(_inner(name), tint, mark, points))
        found.append(CurvePanel(family.replace("_", " "), curves))
    return [panel for panel in found if any(curve.points for curve in panel.curves)]


def switches(lines: Sequence[LogLine]) -> list[int]:
    """Return the steps at which the objective changes, such as the end of the InfoNCE warmup."""
    return [after.step for before, after in pairwise(lines) if before.objective != after.objective]


def chart(key: str, objective: str, panel: CurvePanel, last: int, switched: Sequence[int]) -> Markup:
    values = [v for curve in panel.curves for _, v in curve.points]
    low, high = min(values), max(values)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    span = (high - low) * 0.05
    low, high = low - span, high + span
    width_px, tall = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM

    def place(step: float, value: float) -> tuple[float, float]:
        return _LEFT + width_px * step / max(last, 1), _TOP + tall * (high - value) / (high - low)

    parts: list[Markup] = []
    decimals = min(number_format([high - low], unit="number").decimals, 2)
    for value in ticks(low, high, 5):
        y, label = place(0, value)[1], f"{value:.{decimals}f}".replace("-", "−")
        parts.append(line(_LEFT, y, WIDTH - _RIGHT, y, class_="grid"))
        parts.append(text(_LEFT - 5, y + 3.5, label, text_anchor="end", class_="label"))
    for step, anchor in ((0, "start"), (last, "end")):
        parts.append(text(place(step, low)[0], HEIGHT - 7, f"{step:,}", text_anchor=anchor, class_="label"))
    parts.append(text(_LEFT + width_px / 2, HEIGHT - 7, "step", text_anchor="middle", class_="label"))
    for step in switched:
        x = place(step, low)[0]
        title = tag("title", f"warm-up ends at step {step}")
        parts.append(line(x, _TOP, x, _TOP + tall, title, class_="switch"))
    for curve in panel.curves:
        d = "".join(polyline(place(s, v) for s, v in part) for part in _parts(curve.points, switched))
        parts.append(tag("path", tag("title", curve.name), d=d, class_=f"curve {curve.color}"))
        if curve.mark is not None and curve.points:
            end = place(*curve.points[-1])
            parts.append(tag("path", d=shape(curve.mark, *end, 3), class_=f"mark {curve.color}"))
    ends = "; ".join(f"{c.name} ends at {c.points[-1][1]:.3g}" for c in panel.curves if c.points)
    return svg(key, WIDTH, HEIGHT, f"{objective}: {panel.title} by step", ends, *parts)


def _parts(points: Sequence[tuple[int, float]], cuts: Sequence[int]) -> list[list[tuple[int, float]]]:
    """Split a curve where the objective changes, since losses of different objectives are not comparable."""
    edges = [-math.inf, *cuts, math.inf]
    parts = [[point for point in points if low <= point[0] < high] for low, high in pairwise(edges)]
    return [part * 2 if len(part) == 1 else part for part in parts]  # a line through a single point would be invisible


def _series(points: Iterable[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return the finite points; if there are many, an evenly spaced subset."""
    kept = [(step, value) for step, value in points if math.isfinite(value)]
    return [kept[i] for i in spread(len(kept), _MOST_STEPS - 2)] if len(kept) > _MOST_STEPS else kept


def _inner(name: str) -> str:
    return name.split("/", 1)[-1]


def _modality(name: str, family: Sequence[str], modalities: Sequence[str]) -> int | None:
    """Return the index of the modality that distinguishes a term from the others of its family, or None."""
    inner = _inner(name)
    held = [m for m in modalities if m == inner or m in inner.split("-")]
    apart = [m for m in held if len(family) == 1 or not all(m in _inner(other).split("-") for other in family)]
    return list(modalities).index(apart[0]) if len(apart) == 1 else None
