"""Plots for notebooks."""

import base64
import math
import os
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from unialign.errors import DataError
from unialign.io import replace_file
from unialign.report import _cosines, _heatmap, _maps
from unialign.report._model import DataInfo
from unialign.report._projection import PCAMap
from unialign.report._svg import num, rect, tag, text

_GAP, _CAPTION, _COLUMNS = 16.0, 24.0, 3
_CHARTS = re.compile(r"/\* charts: begin \*/(.*?)/\* charts: end \*/", re.DOTALL)
_THEME = re.compile(r":root \{.*?\n\}\n@media \(prefers-color-scheme: dark\) \{.*?\n\}\n", re.DOTALL)


class Plot:
    """A chart, displayed in a notebook if it is the last expression of a cell.

    Attributes:
        svg: the chart as a self-contained SVG document.
    """

    def __init__(self, svg: str, title: str) -> None:
        self.svg, self._title = svg, title

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the chart as an SVG file, and return its path.

        Raises:
            DataError: the file name does not end in .svg.
        """
        target = Path(path)
        if target.suffix.lower() != ".svg":
            raise DataError(f"the file name must end in .svg, got {target.name!r}")
        replace_file(target, self.svg)
        return target

    def __repr__(self) -> str:
        return f"Plot({self._title!r}); use .save('plot.svg'), or display it in a notebook"

    def _repr_html_(self) -> str:
        # Use an image to keep the styles of the chart and the notebook separate.
        data = base64.b64encode(self.svg.encode()).decode("ascii")
        return str(tag("img", src=f"data:image/svg+xml;base64,{data}", alt=self._title, style="max-width: 100%"))


class _Panel(NamedTuple):
    caption: str
    chart: Markup


def plot_map(sketch: Mapping[str, Any]) -> Plot:
    if not sketch:
        raise DataError("there is no map, since the modalities differ in dim or fewer than 3 items are valid")
    names = tuple(sketch["map"])
    data, projection = DataInfo("", "", None, names), read_map(sketch)
    items = [f"row {row:,}" for row in sketch["rows"]]
    chart = _maps.space_map("map", "Map", data, projection, _maps.reach([projection]), items, range(len(items)))
    first, second = projection.explained
    caption = f"the axes explain {100 * first:.0f} % and {100 * second:.0f} % of the variance"
    return _compose("Map of the sample", [_Panel(caption, chart)], modalities=names)


def read_map(sketch: Mapping[str, Any]) -> PCAMap:
    """Convert the map in the results to arrays; NaN where a modality is absent."""
    points = {
        name: np.array([[math.nan, math.nan] if xy is None else xy for xy in rows], dtype=np.float64)
        for name, rows in sketch["map"].items()
    }
    first, second = sketch["explained"]
    return PCAMap(points, (first, second))


def plot_cosines(sketch: Mapping[str, Any]) -> Plot:
    if not sketch.get("cosines"):
        raise DataError("there are no cosines, since no two modalities of equal dim share 3 items")
    panels = [_Panel(n, _cosines.cosine_panel(f"c{i}", n, h)) for i, (n, h) in enumerate(sketch["cosines"].items())]
    return _compose("Cosines of true pairs (blue) and random pairs (gray)", panels)


def plot_recall(recall: Mapping[str, float]) -> Plot:
    pairs = [name.split("->") for name in recall if "+" not in name]
    if not pairs:
        raise DataError("there is no R@1, since no direction was measured")
    modalities = tuple(dict.fromkeys(name for pair in pairs for name in pair))
    found = {_heatmap.direction_pair(name, modalities): value for name, value in recall.items()}
    values = {pair: value for pair, value in found.items() if pair is not None}
    data, top = DataInfo("", "", None, modalities), max(*values.values(), 0.01)
    panels = [_Panel("row: query, column: candidates", _heatmap.heatmap("heat", "all", "R@1", data, values, top))]
    return _compose("R@1 by direction, %", panels)


def _compose(title: str, panels: Sequence[_Panel], *, modalities: Sequence[str] = ()) -> Plot:
    sizes = [_size(panel.chart) for panel in panels]
    width, height = max(w for w, _ in sizes), max(h for _, h in sizes) + _CAPTION
    columns = min(_COLUMNS, len(panels))
    parts = [text(_GAP, _GAP + 12, title, class_="title")]
    for i, (panel, (w, h)) in enumerate(zip(panels, sizes, strict=True)):
        x, y = _GAP + i % columns * (width + _GAP), 2 * _GAP + 12 + i // columns * (height + _GAP)
        parts.append(text(x, y + 12, panel.caption, class_="label"))
        place = f'x="{num(x)}" y="{num(y + _CAPTION)}" width="{num(w)}" height="{num(h)}" '
        parts.append(Markup(str(panel.chart).replace("<svg ", f"<svg {place}", 1)))
    bottom = 2 * _GAP + 12 + -(-len(panels) // columns) * (height + _GAP)
    x = _GAP
    for i, name in enumerate(modalities):
        if x > _GAP and x + 24 + 7 * len(name) > width:
            x, bottom = _GAP, bottom + 20
        mark = str(_maps.legend_mark(i)).replace("<svg ", f'<svg x="{num(x)}" y="{num(bottom)}" ', 1)
        parts += [Markup(mark), text(x + 20, bottom + 12, name, class_="label")]
        x += 36 + 7 * len(name)
    whole = (columns * (width + _GAP) + _GAP, bottom + (28 if modalities else 0))
    shown = [_maps.marker_definitions(modalities)] if modalities else []
    document = tag(
        "svg",
        tag("style", Markup(_style())),
        rect(0, 0, *whole, class_="page"),
        *shown,
        *parts,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {num(whole[0])} {num(whole[1])}",
        width=whole[0],
        height=whole[1],
        class_="grid",
    )
    return Plot(str(document) + "\n", title)


def _size(chart: Markup) -> tuple[float, float]:
    found = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', str(chart))
    return (float(found[1]), float(found[2])) if found else (0.0, 0.0)


def _style() -> str:
    sheet = files("unialign.report").joinpath("page.css").read_text(encoding="utf-8")
    theme, charts = _THEME.search(sheet), _CHARTS.search(sheet)
    font = "text { font-family: system-ui, sans-serif; } .title { font-size: 14px; font-weight: 600; }"
    return (theme[0] if theme else "") + (charts[1] if charts else "") + font + " .page { fill: var(--card); }"
