"""Histograms of the cosines of true and random pairs."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from unialign.report._format import number_format
from unialign.report._svg import line, num, svg, tag, text, ticks

WIDTH, HEIGHT = 340.0, 150.0
# The margins hold half of a label at the end of the axis.
_LEFT, _RIGHT, _TOP, _BOTTOM = 20.0, 20.0, 12.0, 26.0


def cosine_panel(key: str, label: str, histogram: Mapping[str, Any]) -> Markup:
    """Draw both histograms, scaled to the same maximum height."""
    low, high = float(histogram["low"]), float(histogram["high"])
    width_px, bottom = WIDTH - _LEFT - _RIGHT, HEIGHT - _BOTTOM
    parts = []
    fmt = number_format([high - low], unit="number")
    for value in ticks(low, high, 4):
        x = _LEFT + width_px * (value - low) / max(high - low, 1e-12)
        parts.append(line(x, _TOP, x, bottom, class_="grid"))
        written = f"{value:.{min(fmt.decimals, 3)}f}".replace("-", "−")
        parts.append(text(x, HEIGHT - 8, written, text_anchor="middle", class_="label"))
    parts.append(line(_LEFT, bottom, WIDTH - _RIGHT, bottom, class_="axis"))
    for kind, tint in (("random", "other"), ("true", "accent")):
        parts.append(tag("path", d=_area(histogram[kind], width_px, bottom), class_=f"area {tint}"))
    description = f"Cosines of true pairs and of random pairs of {label}, from {low:.3f} to {high:.3f}."
    return svg(key, WIDTH, HEIGHT, f"Cosines of {label}", description, *parts)


def _area(counts: Sequence[float], width_px: float, bottom: float) -> str:
    top = max([*counts, 1])
    step = width_px / max(len(counts), 1)
    d = f"M{num(_LEFT)} {num(bottom)}"
    for i, count in enumerate(counts):
        d += f"V{num(bottom - (bottom - _TOP) * count / top)}H{num(_LEFT + (i + 1) * step)}"
    return f"{d}V{num(bottom)}Z"
