"""Map, Health and Compare of the page in Chromium."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from browser import Live, find_axe, page, violations, wait_until
from planted import HUB, ITEMS, SWAPPED, planted_index, planted_rows

import unialign as ua

__all__ = ["page"]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("page-map")
    with planted_index(folder / "a") as a, planted_index(folder / "b", planted_rows(seed=1)) as b:
        served = Live(lambda: ua.serve.app({"planted": a, "other": b}, burst=0, connections=0))
        yield served
        served.stop()


def opened(page: Any, live: Live, address: str) -> Any:
    page.goto("about:blank")
    page.goto(live.url + address)
    return page


def opened_map(page: Any, live: Live, extra: str = "") -> Any:
    opened(page, live, f"#/map?layout=pca{extra}")
    wait_until(page, f"document.querySelector('.map-canvas')?.map.data.n === {3 * ITEMS - 1}")
    return page


def place_of(page: Any, point: str = "0") -> list[float]:
    """Place of a point on the screen."""
    return list(
        page.evaluate(
            "(() => { const host = document.querySelector('.map-canvas'); const map = host.map; const box ="
            f" host.getBoundingClientRect(); const i = {point};"
            " const [x, y] = map.toScreen(map.data.x[i], map.data.y[i]); return [x + box.left, y + box.top]; })()"
        )
    )


def test_a_lasso_lists_items_that_are_exported(page: Any, live: Live) -> None:
    opened_map(page, live)
    x, y, width, height = page.locator(".map-canvas").bounding_box().values()
    page.keyboard.down("Shift")
    page.mouse.move(x + 0.3 * width, y + 0.2 * height)
    page.mouse.down()
    for dx, dy in ((0.7, 0.2), (0.7, 0.8), (0.3, 0.8), (0.3, 0.25)):
        page.mouse.move(x + dx * width, y + dy * height, steps=4)
    page.mouse.up()
    page.keyboard.up("Shift")
    page.wait_for_selector(".map-list li")
    count = int(page.locator(".map-side h2").text_content().split()[0])
    assert count > 20
    page.click("text=Select all")
    assert page.locator("#selected-count").text_content() == str(count)
    page.click(".map-side >> text=Export")
    page.wait_for_selector("#screen-export:not([hidden]) .export-grid")
    with page.expect_download() as download:
        page.locator("#screen-export button.primary").first.click()
    items = json.loads(download.value.path().read_text())["items"]
    assert len(items) == count
    assert set(items[0]) >= {"key", "label", "modalities"}


def test_hover_and_click_show_an_item_with_its_modalities(page: Any, live: Live) -> None:
    opened_map(page, live)
    point = "map.siblings(0)[0]"
    page.mouse.move(*place_of(page, point))
    page.wait_for_selector(".map-tip:not([hidden]) b")
    page.mouse.click(*place_of(page, point))
    page.wait_for_selector(".map-side.is-open .map-halves figure")
    name = page.locator(".map-side h2").text_content()
    assert name.startswith("item-")
    assert page.locator(".map-halves figure").count() == (2 if name == "item-5" else 3)
    page.click("text=Use as query")
    page.wait_for_selector("#screen-search:not([hidden]) .result")
    # The answers are on the map, under a star.
    page.click("#rail a[data-screen=map]")
    page.wait_for_selector("#screen-map:not([hidden])")
    page.wait_for_timeout(50)


def test_planted_faults_are_laid_over_the_map_and_listed(page: Any, live: Live) -> None:
    opened_map(page, live)
    page.click(".map-find")
    page.wait_for_selector(".map-marks .toggle:has-text('Hubs')")
    page.click(".map-marks .toggle:has-text('Mispaired')")
    flagged = "(() => { const { map } = document.querySelector('.map-canvas');"
    shown = page.evaluate(f"{flagged} return map.dimmed.reduce((sum, one) => sum + !one, 0); }})()")
    assert 2 <= shown <= 12
    page.click("text=List them")
    page.wait_for_selector("#screen-health:not([hidden]) .fault")
    first = [page.locator(".fault").nth(n).get_attribute("data-key") for n in (0, 1)]
    assert set(first) == set(SWAPPED)
    assert page.locator(".fault").first.locator("figure").count() == 2
    assert page.locator(".fault-swap").count() >= 2
    page.locator(".fault input").first.check()
    assert page.locator("#selected-count").text_content() == "1"
    page.click(".health-kind:has-text('Hubs')")
    page.wait_for_selector(f".fault[data-key='{HUB}']")
    page.locator(f".fault[data-key='{HUB}'] .button:has-text('Map')").click()
    page.wait_for_selector(f".map-side h2:has-text('{HUB}')")
    page.go_back()
    page.wait_for_selector(f".fault[data-key='{HUB}']")


def test_keys_move_zoom_visit_points_and_draw_a_rectangle(page: Any, live: Live) -> None:
    opened_map(page, live)
    page.locator(".map-canvas").focus()
    view = "JSON.stringify(document.querySelector('.map-canvas').map.view)"
    page.keyboard.press("+")
    page.keyboard.press("ArrowRight")
    moved = json.loads(page.evaluate(view))
    assert moved["zoom"] > 1
    assert moved["x"] > 0.5
    wait_until(page, "location.hash.includes('at=')")
    page.keyboard.press("0")
    assert json.loads(page.evaluate(view)) == {"x": 0.5, "y": 0.5, "zoom": 1}
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    wait_until(page, "document.getElementById('live').textContent.includes('2 of 20')")
    page.keyboard.press("Enter")
    page.wait_for_selector(".map-side.is-open .map-halves")
    page.locator(".map-canvas").focus()
    page.keyboard.press("l")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_selector(".map-list li")
    # After twenty points, Tab leaves the map.
    page.locator(".map-canvas").focus()
    for _ in range(21):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement !== document.querySelector('.map-canvas')")


def test_filters_fade_points_and_the_table_lists_what_is_in_view(page: Any, live: Live) -> None:
    opened_map(page, live, "&where=number+%3C+12")
    wait_until(page, "document.querySelector('.map-canvas').map.dimmed.reduce((sum, one) => sum + !one, 0) === 35")
    page.click("text=Table of what is in view")
    page.wait_for_selector(".map-table tbody tr")
    page.click(".sort >> text=Name")
    names = page.locator(".map-table tbody tr td:first-child").all_text_contents()
    assert names == sorted(names)
    assert "points in view" in page.locator("#map-text").text_content()


def test_two_indexes_are_compared_side_by_side(page: Any, live: Live) -> None:
    opened(page, live, "#/compare")
    page.wait_for_selector(".movers li")
    assert page.locator(".compare-maps canvas").count() == 4
    assert page.locator(".compare-numbers tbody tr").count() == 4
    page.fill(".compare-query input", "item-3")
    page.press(".compare-query input", "Enter")
    page.wait_for_selector(".compare-answers li")
    assert page.locator(".compare-answers section").count() == 2
    assert page.locator(".compare-answers li").count() == 20


@pytest.mark.slow
@pytest.mark.parametrize("screen", ["map?layout=pca", "health", "compare"])
@pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (390, "dark")])
def test_screens_have_no_violations_and_fit(page: Any, live: Live, screen: str, width: int, theme: str) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=theme)
    opened(page, live, f"#/{screen}")
    page.wait_for_selector({"m": ".map-legend .toggle", "h": ".health > *", "c": ".movers li"}[screen[0]])
    page.wait_for_timeout(600)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    axe = find_axe()
    if axe is None:
        pytest.skip("axe-core is not installed; set AXE to its folder")
    assert violations(page, axe) == []
