"""The page of the service in Chromium: what a person does."""

import gzip
import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from browser import (
    CJK,
    HTML_KEY,
    RIGHT_TO_LEFT,
    Live,
    find_axe,
    live,
    page,
    page_index,
    violations,
    wait_until,
)

import unialign as ua
from serve_support import png

__all__ = ["live", "page", "page_index"]


SHOWN = "[...document.querySelectorAll('.result-name')].map((one) => one.textContent).join()"


def opened(page: Any, live: Live, address: str = "#/search") -> Any:
    page.goto("about:blank")
    page.goto(live.url + address)
    return page


def parts_of(page: Any) -> list[dict[str, Any]]:
    query = urlsplit(urlsplit(page.url).fragment).query
    return list(json.loads(parse_qs(query).get("q", ["[]"])[0]))


def names(page: Any) -> list[str]:
    return list(page.locator(".result-name").all_text_contents())


def search(page: Any, text: str) -> list[str]:
    page.fill("#query", text)
    page.press("#query", "Enter")
    page.wait_for_selector(".result")
    return names(page)


def test_typed_text_finds_items_in_the_order_of_the_index(page: Any, live: Live, page_index: ua.Index) -> None:
    opened(page, live)
    found = search(page, "a red car")
    expected = [hit.name for hit in page_index.search(ua.query(text="a red car"), k=24)]
    assert found == expected
    assert page.locator(".summary").text_content().startswith("24 results · exact, 43 compared")
    assert page.locator("#live").text_content() in ("", f"24 results, first {expected[0]}")


def test_typing_alone_searches_and_an_address_restores_the_state(page: Any, live: Live, page_index: ua.Index) -> None:
    opened(page, live)
    first = [hit.name for hit in page_index.search(ua.query(text="winter"), k=24)]
    page.locator("#query").press_sequentially("winter")
    # Slow typing also searches for the beginning of the word.
    wait_until(page, f"{SHOWN} === {json.dumps(','.join(first))}")
    page.press("#query", "Enter")
    page.wait_for_selector(".chip")
    page.locator(".toggle", has_text="audio").click()
    wait_until(page, "document.querySelectorAll('.result').length < 20")
    filtered, address = names(page), page.url
    assert "has=audio" in address
    page.go_back()
    wait_until(page, "document.querySelectorAll('.result').length > 20")
    assert names(page) == first
    opened(page, live, "#" + urlsplit(address).fragment)
    page.wait_for_selector(".result")
    assert names(page) == filtered
    assert page.locator(".toggle[aria-pressed=true]").text_content() == "audio"


def test_weights_change_the_order(page: Any, live: Live) -> None:
    parts = json.dumps([{"text": "winter", "weight": 1}, {"text": "a red car", "weight": 0.1}])
    opened(page, live, f"#/search?q={parts}")
    page.wait_for_selector(".result")
    before = names(page)
    slider = page.locator(".chip input[type=range]").nth(1)
    slider.focus()
    slider.press("Shift+ArrowRight")
    wait_until(
        page,
        f"{SHOWN} !== {json.dumps(','.join(before))}",
    )
    assert parts_of(page)[1]["weight"] == 1.1
    page.locator(".chip input[type=range]").nth(1).press("n")
    page.wait_for_selector(".chip.against")
    assert parts_of(page)[1]["weight"] == -1.1
    page.keyboard.press("Control+z")
    page.wait_for_selector(".chip.against", state="detached")


def test_a_dropped_and_a_pasted_picture_are_parts(page: Any, live: Live, page_index: ua.Index) -> None:
    opened(page, live)
    page.wait_for_selector(".example")
    for event, colour in (("drop", "#c80a0a"), ("paste", "#0a20c8")):
        page.evaluate(
            """async ([event, colour]) => {
              const canvas = new OffscreenCanvas(40, 30);
              const draw = canvas.getContext('2d');
              draw.fillStyle = colour; draw.fillRect(0, 0, 40, 30);
              const data = new DataTransfer();
              data.items.add(new File([await canvas.convertToBlob()], event + '.png', { type: 'image/png' }));
              const init = { bubbles: true, cancelable: true };
              document.body.dispatchEvent(event === 'drop'
                ? new DragEvent('drop', { ...init, dataTransfer: data })
                : new ClipboardEvent('paste', { ...init, clipboardData: data }));
            }""",
            [event, colour],
        )
        page.wait_for_selector(f".chip:has-text('{event}.png')")
    page.wait_for_selector(".result")
    assert [part["name"] for part in parts_of(page)] == ["drop.png", "paste.png"]
    # A link to files of another session says so.
    opened(page, live, "#" + urlsplit(page.url).fragment)
    page.wait_for_selector(".chip.lost")
    assert "is not in this link" in page.locator(".chip.lost").first.text_content()


def test_a_chosen_picture_gives_the_results_of_the_index(page: Any, live: Live, page_index: ua.Index) -> None:
    opened(page, live)
    page.locator("input[type=file]").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": png()})
    page.wait_for_selector(".result")
    import numpy as np

    pixels = np.broadcast_to(np.array([200, 10, 10], np.uint8), (30, 40, 3)).copy()
    assert names(page) == [hit.name for hit in page_index.search(ua.query(image=pixels), k=24)]


def test_the_keyboard_alone_searches_opens_mixes_and_selects(page: Any, live: Live) -> None:
    opened(page, live)
    page.wait_for_selector(".example")
    page.keyboard.press("/")
    wait_until(page, "document.activeElement.id === 'query'")
    page.keyboard.type("a red car")
    page.keyboard.press("Enter")
    page.wait_for_selector(".result")
    page.locator(".result").first.focus()
    page.keyboard.press("ArrowRight")
    second = page.evaluate("document.activeElement.dataset.key")
    assert second == page.locator(".result").nth(1).get_attribute("data-key")
    page.keyboard.press("End")
    page.keyboard.press("Home")
    page.keyboard.press("x")
    page.wait_for_selector("#results li.selected, .results li.selected")
    page.keyboard.press("Enter")
    page.wait_for_selector(".detail:not([hidden])")
    page.keyboard.press("Escape")
    page.wait_for_selector(".detail", state="hidden")
    page.locator(".result").nth(1).focus()
    page.keyboard.press("-")
    page.wait_for_selector(".chip.against")
    assert parts_of(page)[1] == {"item": second, "weight": -1}
    page.keyboard.press("Escape")
    page.locator("#main").focus()
    page.keyboard.press("g")
    page.keyboard.press("e")
    page.wait_for_selector("#screen-export:not([hidden]) .choices")
    assert "#/export" in page.url


def test_texts_of_items_stay_texts_in_every_script(page: Any, live: Live) -> None:
    opened(page, live, "#/search?q=[{%22text%22:%22a%22}]&label=names")
    page.wait_for_selector(".result")
    assert sorted(names(page)) == sorted([HTML_KEY, RIGHT_TO_LEFT, CJK])
    page.locator(f".result[data-key='{RIGHT_TO_LEFT}']").click()
    page.wait_for_selector(".detail h2")
    assert page.locator(".detail h2").text_content() == RIGHT_TO_LEFT
    assert page.evaluate("getComputedStyle(document.querySelector('.detail h2')).direction") == "rtl"
    assert page.title() == "things · unialign"
    assert page.locator("main img[onerror]").count() == 0


def test_without_results_the_filters_can_be_lifted(page: Any, live: Live) -> None:
    opened(page, live, "#/search?t=winter&label=names&has=image")
    page.wait_for_selector(".empty")
    assert page.locator(".empty .button").all_text_contents() == ["Remove has(image)", "Remove label in ('names')"]
    page.locator(".empty .button").first.click()
    page.wait_for_selector(".result")
    assert "has=" not in page.url


def test_a_busy_service_is_asked_again_after_a_countdown(page: Any, live: Live) -> None:
    calls: list[str] = []

    def busy(route: Any) -> None:
        calls.append(route.request.url)
        if len(calls) > 1:
            return route.continue_()
        error = {"code": "busy", "message": "the service is busy", "request_id": "0123"}
        return route.fulfill(
            status=503, headers={"Retry-After": "1"}, content_type="application/json", body=json.dumps({"error": error})
        )

    page.route("**/api/v1/search", busy)
    opened(page, live)
    page.fill("#query", "winter")
    page.press("#query", "Enter")
    assert page.locator(".countdown").text_content() == "again in 1 s"
    assert "busy · HTTP 503 · request 0123" in page.locator(".error").text_content()
    page.wait_for_selector(".result")
    assert len(calls) == 2
    page.problems.clear()  # the console lists the answer 503


def test_a_wrong_filter_is_told_with_its_code_and_request(page: Any, live: Live) -> None:
    opened(page, live, "#/search?t=winter&where=price+%3C%3C+3")
    page.wait_for_selector(".error")
    assert "bad_filter" in page.locator(".error").text_content()
    page.problems.clear()


def test_selected_items_are_exported_as_keys(page: Any, live: Live) -> None:
    opened(page, live)
    found = search(page, "winter")
    for place in (0, 2):
        page.locator(".result").nth(place).focus()
        page.keyboard.press("x")
    assert page.locator("#selected-count").text_content() == "2"
    page.locator("#rail a[data-screen=export]").click()
    page.locator("input[value=selection]").check()
    page.locator("input[value=keys]").check()
    with page.expect_download() as download:
        page.locator("button:has-text('Save the file')").click()
    assert download.value.path().read_text().splitlines() == [found[0], found[2]]
    assert "ua.Index.open" in page.locator("pre").nth(1).text_content()


@pytest.mark.slow
def test_the_page_recovers_when_the_service_comes_back(chromium: Any, page_index: ua.Index) -> None:
    own = Live(lambda: ua.serve.app({"things": page_index}, burst=0, connections=0))
    context = chromium.new_context()
    page = context.new_page()
    try:
        opened(page, own)
        search(page, "winter")
        own.stop()
        page.fill("#query", "a red car")
        page.press("#query", "Enter")
        page.wait_for_selector(".offline")
        assert "does not answer" in page.locator(".offline").text_content()
        own.start()
        page.wait_for_selector(".offline", state="detached", timeout=20_000)
        page.wait_for_selector(".error", state="detached")
        assert len(parts_of(page)) == 2
        assert len(names(page)) == 24
    finally:
        context.close()
        own.stop()


@pytest.mark.slow
def test_a_recording_is_sent_as_a_sound(page: Any, live: Live) -> None:
    opened(page, live)
    page.locator("button[aria-label='Record a sound']").click()
    page.wait_for_selector(".recording meter")
    page.wait_for_timeout(900)
    page.locator(".recording button:has-text('Stop')").click()
    with page.expect_response("**/search/files") as answer:
        page.locator("button:has-text('Search with it')").click()
    # The service reads WAV, FLAC and OGG; browsers record WebM.
    assert answer.value.status == 200
    page.wait_for_selector(".result")
    assert parts_of(page)[0]["kind"] == "audio"


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(320, "dark"), (390, "light"), (768, "dark"), (1280, "light")])
def test_nothing_is_cut_and_axe_finds_nothing(chromium: Any, live: Live, width: int, scheme: str) -> None:
    axe = find_axe()
    context = chromium.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    try:
        for address, shown in [
            ("#/search", ".example"),
            ("#/search?q=[{%22text%22:%22winter%22},{%22item%22:%22item-7%22,%22weight%22:-0.5}]", ".result .visual"),
            ("#/search?t=winter&open=item-7", ".detail:not([hidden]) .scores"),
            ("#/export", ".choices"),
            ("#/make", "#screen-make .empty"),
        ]:
            opened(page, live, address)
            page.wait_for_selector(shown)
            assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, address
            if axe is not None:
                page.wait_for_timeout(200)
                assert violations(page, axe) == [], address
    finally:
        context.close()
    if axe is None:
        pytest.skip("axe-core is not installed (npm install axe-core, or AXE=FOLDER); the widths were checked")


def page_files() -> list[Any]:
    from importlib import resources

    return [one for one in (resources.files("unialign.serve") / "page").iterdir() if one.is_file()]


def test_the_service_sends_at_most_150_kilobytes_for_the_page(client: Any) -> None:
    sent, ask = 0, client()
    for one in page_files():
        answer = ask("GET", f"/{one.name}", headers={"accept-encoding": "gzip"})
        assert answer.headers["content-encoding"] == "gzip"
        assert gzip.decompress(answer.body) == one.read_bytes()
        sent += len(answer.body)
    assert sent <= 150_000


def test_the_page_names_no_other_host_and_has_no_inline_code() -> None:
    files = page_files()
    for one in files:
        text = one.read_text()
        rest = text.replace("http://www.w3.org/2000/svg", "")
        assert not [word for word in ("http://", "https://", "innerHTML", "eval(") if word in rest], one.name
    shell = next(one for one in files if one.name == "index.html").read_text()
    assert not [word for word in (" style=", "<script>", "onclick") if word in shell]
