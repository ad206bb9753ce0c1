"""SVG charts as escaped strings; CSS variables hold the colors of light and dark mode."""

import math
from collections.abc import Iterable, Sequence

from markupsafe import Markup, escape

Content = str | Markup


def tag(name: str, *children: Content, **attributes: str | float | None) -> Markup:
    """Return an element; the attribute `a_b` becomes `a-b`, `class_` becomes `class`, and None is omitted."""
    text = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value if isinstance(value, str) else num(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    inner = "".join(str(escape(child)) for child in children)
    return Markup(f"<{name}{text}>{inner}</{name}>" if inner else f"<{name}{text}/>")


def num(value: float) -> str:
    """Format a number with at most two decimals, so that pages are identical on all machines."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def svg(key: str, width: float, height: float, title: str, description: str, *children: Content) -> Markup:
    """Return an SVG element; `key` must be unique on the page."""
    return tag(
        "svg",
        tag("title", title, id=f"{key}-t"),
        tag("desc", description, id=f"{key}-d"),
        *children,
        viewBox=f"0 0 {num(width)} {num(height)}",
        role="img",
        aria_labelledby=f"{key}-t {key}-d",
    )


def group(*children: Content, **attributes: str | float | None) -> Markup:
    return tag("g", *children, **attributes)


def text(x: float, y: float, content: Content, **attributes: str | float | None) -> Markup:
    return tag("text", content, x=x, y=y, **attributes)


def line(x1: float, y1: float, x2: float, y2: float, *children: Content, **attributes: str | float | None) -> Markup:
    return tag("line", *children, x1=x1, y1=y1, x2=x2, y2=y2, **attributes)


def rect(
    x: float, y: float, width: float, height: float, *children: Content, **attributes: str | float | None
) -> Markup:
    return tag("rect", *children, x=x, y=y, width=width, height=height, **attributes)


def polyline(points: Iterable[tuple[float, float]]) -> str:
    """Return path data through the points, interrupted at non-finite points."""
    parts, pen = [], "M"
    for x, y in points:
        if not (math.isfinite(x) and math.isfinite(y)):
            pen = "M"
            continue
        parts.append(f"{pen}{num(x)} {num(y)}")
        pen = "L"
    return "".join(parts)


def _polygon(corners: int, *, turn: float = 0.0, inner: float = 1.0) -> list[tuple[float, float]]:
    """Return the corners of a polygon, or of a star if `inner` (the radius of odd corners) is below 1."""
    angles = [2 * math.pi * i / corners - math.pi / 2 + turn for i in range(corners)]
    radii = [inner if i % 2 else 1.0 for i in range(corners)]
    return [(r * math.cos(a), r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]


_A = 0.34
_ARM = [(-_A, -1), (_A, -1), (_A, -_A)]
_PLUS = [*_ARM, *((-y, x) for x, y in _ARM), *((-x, -y) for x, y in _ARM), *((y, -x) for x, y in _ARM)]
_C = math.sqrt(0.5)

# One shape per modality, distinguishable without color and scaled to the same visual size.
_SHAPES: tuple[tuple[float, Sequence[tuple[float, float]]], ...] = (
    (1.0, _polygon(24)),
    (1.22, _polygon(3)),
    (1.2, _polygon(4, turn=math.pi / 4)),
    (1.15, _PLUS),
    (1.25, _polygon(4)),
    (1.22, _polygon(3, turn=math.pi)),
    (1.15, [((x - y) * _C, (x + y) * _C) for x, y in _PLUS]),
    (1.35, _polygon(10, inner=0.45)),
    (1.1, _polygon(5)),
    (1.2, [(-1, -0.4), (1, -0.4), (1, 0.4), (-1, 0.4)]),
    (1.2, [(-0.4, -1), (0.4, -1), (0.4, 1), (-0.4, 1)]),
    (1.35, _polygon(8, inner=0.35)),
)
SHAPES = len(_SHAPES)
COLORS = 8  # number of colors in the style sheet; pairs of shape and color are unique for up to 24 modalities


def shape(index: int, x: float, y: float, radius: float) -> str:
    scale, corners = _SHAPES[index % SHAPES]
    points = (f"{num(x + radius * scale * dx)} {num(y + radius * scale * dy)}" for dx, dy in corners)
    return f"M{'L'.join(points)}Z"


def color(index: int) -> str:
    return f"m{index % COLORS}"


def ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """Return about `wanted` round numbers in [low, high]."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low] if math.isfinite(low) else []
    raw = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [step * i for i in range(first, math.floor(high / step + 1e-9) + 1)]


def shortened(label: str, limit: int) -> str:
    return label if len(label) <= limit else label[: limit - 1] + "…"
