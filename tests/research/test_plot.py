"""Test that figures are valid standalone SVG files for light and dark mode, without external resources."""

import math
import re
from xml.etree import ElementTree

import pytest

from research.pages import Dot, Mark, Panel, Point, Series, dots, lines, scatter, sheet

NAN = math.nan


def panels() -> list[Panel]:
    a, b = Mark("a & <b>", 0), Mark("bound", 1, "dashed")
    places = [Point(2, 0.1, 0.0, 0.3), Point(3, NAN), Point(4, 0.5, 0.2, 1.7)]
    return [
        lines("zeta <M>", [Series(a, places), Series(b, places)], x_label="M", x_ticks=(2, 3, 4), within=(-1.0, 1.0)),
        dots("R@1", [Dot("x", 0.5, 0.4, 0.6), Dot("y", NAN), Dot("z", 0.1)], reference=0.5),
        scatter("s", {a: [(0.1, 1.0), (NAN, 2.0)], b: []}, x_label="x", y_label="y", note="rho 0.1"),
    ]


def test_a_sheet_is_a_standalone_file() -> None:
    drawing = sheet("key", "title & more", panels(), columns=2, legend=[Mark("a & <b>", 0), Mark("bound", 1, "dashed")])
    root = ElementTree.fromstring(str(drawing))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert float(root.attrib["width"]) == 680
    assert root.attrib["viewBox"] == f"0 0 {root.attrib['width']} {root.attrib['height']}"
    style = root.find("{http://www.w3.org/2000/svg}style")
    assert style is not None
    assert "prefers-color-scheme:dark" in (style.text or "")
    assert "sans-serif" in (style.text or "")
    assert set(re.findall(r"var\((--[\w]+)\)", style.text or "")) <= set(re.findall(r"(--[\w]+):", style.text or ""))
    assert "nan" not in str(drawing)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|url\(|@import", str(drawing))


def test_every_color_has_a_style_rule() -> None:
    drawing = str(sheet("key", "t", [dots("d", [Dot(str(i), i, number=i) for i in range(12)])]))
    used = set(re.findall(r"m\d", " ".join(re.findall(r'class="mark (m\d)"', drawing))))
    assert used == {f"m{i}" for i in range(8)}
    for name in used:
        assert f".plot .{name} {{" in drawing


def test_bands_are_clipped_to_the_range() -> None:
    """The t-interval over two seeds far exceeds the range of a cosine and would compress the axis."""
    wide = [Series(Mark("a", 0), [Point(2, 0.5, -9.0, 9.0), Point(3, 0.6, -9.0, 9.0)])]
    cut, free = (lines("z", wide, x_label="M", within=w) for w in ((-1.0, 1.0), (-math.inf, math.inf)))
    numbers = [float(x.replace("−", "-")) for x in re.findall(r'text-anchor="end"[^>]*>([−\d.]+)<', str(cut.body))]
    assert numbers
    assert max(map(abs, numbers)) <= 1
    assert str(free.body) != str(cut.body)


@pytest.mark.parametrize(
    "make",
    [lambda: lines("t", [], x_label="x"), lambda: dots("t", []), lambda: scatter("t", {}, x_label="x", y_label="y")],
)
def test_panels_without_data_are_empty(make: object) -> None:
    panel = make()  # type: ignore[operator]
    ElementTree.fromstring(str(sheet("k", "t", [panel])))


def test_dots_are_at_their_values() -> None:
    drawing = str(dots("d", [Dot("a", 0.0), Dot("b", 5.0), Dot("c", 10.0)]).body)
    centers = []
    for path in re.findall(r'd="(M[^"]+)Z"[^>]*class="mark', drawing):
        xs = [float(point.split()[0]) for point in path[1:].split("L")]
        centers.append((min(xs) + max(xs)) / 2)
    assert centers[1] - centers[0] == pytest.approx(centers[2] - centers[1], abs=0.02)
    assert centers[2] > centers[0]
