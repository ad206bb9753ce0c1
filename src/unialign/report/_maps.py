"""Maps of the joint space, one per objective."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from unialign.report._model import DataInfo
from unialign.report._projection import PCAMap, spread
from unialign.report._svg import color, group, line, polyline, rect, shape, svg, tag

Placer = Callable[[Sequence[float]], tuple[float, float]]

SIDE = 340.0
PAD = 10.0
LINKED = 25
# Maximum numbers of points in a panel and on the page, to limit clutter and page size.
_MOST_POINTS, _MOST_ON_PAGE = 4_000, 24_000


def reach(projections: Sequence[PCAMap]) -> float:
    """Return the common scale of all panels, so that a collapsed space looks collapsed."""
    tops = [float(np.nanmax(np.abs(xy))) for p in projections for xy in p.points.values() if np.isfinite(xy).any()]
    return max([*tops, 1e-6]) * 1.04


def drawn_items(items: int, modalities: int, panels: int) -> list[int]:
    """Return the items to draw; if there are many, an evenly spaced subset."""
    return spread(items, max(50, min(_MOST_POINTS, _MOST_ON_PAGE // panels) // modalities))


def marker_definitions(modalities: Sequence[str]) -> Markup:
    """Define the markers once, so that each point on a path takes only two numbers."""
    size = {"markerWidth": 8, "markerHeight": 8, "refX": 4, "refY": 4}
    marks = []
    for i in range(len(modalities)):
        path = tag("path", d=shape(i, 4, 4, 1.9), class_=f"mark {color(i)}")
        marks.append(tag("marker", path, id=f"mark{i}", **size, markerUnits="userSpaceOnUse"))
    return tag("svg", tag("defs", *marks), width=0, height=0, aria_hidden="true", class_="defs")


def legend_mark(index: int) -> Markup:
    path = tag("path", d=shape(index, 8, 8, 5), class_=f"mark {color(index)}")
    return tag("svg", path, viewBox="0 0 16 16", width=16, height=16, aria_hidden="true", class_="key")


def space_map(
    key: str,
    title: str,
    data: DataInfo,
    projection: PCAMap,
    half: float,
    names: Sequence[str],
    drawn: Sequence[int],
) -> Markup:
    def place(xy: Sequence[float]) -> tuple[float, float]:
        unit = (SIDE / 2 - PAD) / half
        return SIDE / 2 + unit * float(xy[0]), SIDE / 2 - unit * float(xy[1])

    faint, centers = [], []
    for i, modality in enumerate(data.modalities):
        xy_N2 = projection.points[modality]
        seen = [place(xy_N2[n]) for n in drawn if np.isfinite(xy_N2[n]).all()]
        if seen:
            d = "M" + " ".join(f"{x:.1f} {y:.1f}" for x, y in seen)
            mark = f"url(#mark{i})"
            faint.append(tag("path", d=d, class_="faint", marker_start=mark, marker_mid=mark, marker_end=mark))
        if np.isfinite(xy_N2).any():
            x, y = place(np.nanmean(xy_N2, axis=0))
            name = tag("title", f"{data.display_name(modality)}: mean of all items")
            centers.append(tag("path", name, d=shape(i, x, y, 6.5), class_=f"center {color(i)}"))
    links, marks = _linked(data, projection.points, names, place)
    description = (
        f"Two-dimensional map of {len(data.modalities)} modalities; each point is one test item in one modality, and "
        "thin lines connect the points of an item."
    )
    mid = SIDE / 2
    frame = rect(1, 1, SIDE - 2, SIDE - 2, rx=6, class_="frame")
    axes = line(mid, PAD, mid, SIDE - PAD, class_="grid"), line(PAD, mid, SIDE - PAD, mid, class_="grid")
    joined = tag("path", d="".join(links), class_="links")
    return svg(key, SIDE, SIDE, title, description, frame, *axes, *faint, joined, group(*marks), group(*centers))


def _linked(
    data: DataInfo, points: Mapping[str, NDArray[np.float64]], names: Sequence[str], place: Placer
) -> tuple[list[str], list[Markup]]:
    """Draw lines from the modalities of some items to their mean."""
    links: list[str] = []
    marks: list[Markup] = []
    for n in spread(len(names), LINKED):
        found = [(i, m, place(points[m][n])) for i, m in enumerate(data.modalities) if np.isfinite(points[m][n]).all()]
        if not found:
            continue
        x, y = (math.fsum(point[axis] for _, _, point in found) / len(found) for axis in (0, 1))
        links.extend(polyline([(x, y), point]) for _, _, point in found)
        for i, modality, (x, y) in found:
            title = tag("title", f"{names[n]}: {data.display_name(modality)}")
            marks.append(tag("path", title, d=shape(i, x, y, 3), class_=f"mark {color(i)}"))
    return links, marks
