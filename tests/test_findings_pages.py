"""Test that the tables and figures in the findings equal those generated from the results."""

import json
from pathlib import Path

import pytest

from benchmarks import end_to_end, findings, from_scratch, tuxpaint
from research.pages import Section, Table, markdown_page, replace_blocks
from unialign.errors import DataError

ROOT = Path(__file__).resolve().parent.parent
RESULTS = sorted((ROOT / "docs" / "findings" / "results").glob("*.json"))
# The tables of these pages are made by `benchmarks`, not by a study.
OTHERS = ("index", "tuxpaint", "from_scratch")
PAGES = sorted(p for p in (ROOT / "docs" / "findings").glob("*.md") if p.stem not in OTHERS)


@pytest.mark.parametrize("path", RESULTS, ids=lambda p: p.stem)
def test_a_page_equals_the_one_made_from_its_results(path: Path) -> None:
    """If this test fails, run `python -m benchmarks.findings RUN` to update the page."""
    results = json.loads(path.read_text("utf-8"))
    page = path.parent.parent / f"{path.stem}.md"
    assert findings.page(results, page.read_text("utf-8")) == page.read_text("utf-8")
    for section in findings.sections(results):
        for figure in section.figures:
            drawn = path.parent.parent / "figures" / f"{figure.name}.svg"
            assert drawn.read_text("utf-8") == f"{figure.drawing}\n"


def test_pages_and_results_belong_together() -> None:
    assert [p.stem for p in PAGES] == [p.stem for p in RESULTS]
    known = {
        f"{figure.name}.svg"
        for p in RESULTS
        for s in findings.sections(json.loads(p.read_text("utf-8")))
        for figure in s.figures
    }
    assert {p.name for p in (ROOT / "docs" / "findings" / "figures").glob("*.svg")} == known


def test_the_tables_of_the_stamps_equal_the_results() -> None:
    results = json.loads((ROOT / "benchmarks" / "results" / "tuxpaint.json").read_text("utf-8"))
    assert tuxpaint.table(results) in tuxpaint.PAGE.read_text("utf-8")
    assert results["commands"] == [" ".join(command.split()) for command in tuxpaint.commands()]


def test_the_page_on_random_weights_equals_the_results() -> None:
    page = from_scratch.PAGE.read_text("utf-8")
    results = json.loads((ROOT / "benchmarks" / "results" / "from_scratch.json").read_text("utf-8"))
    assert from_scratch.table(results) in page
    assert from_scratch.drawing(results) == from_scratch.FIGURE.read_text("utf-8")
    assert results["test"]["plain"]["difference"]["auto - unialign"]["mean"]["low"] > 0
    trained = json.loads((ROOT / "benchmarks" / "results" / "end_to_end.json").read_text("utf-8"))
    assert end_to_end.table(trained) in page
    for objective in trained["objectives"].values():
        assert all(objective["directions"][name]["mean"] >= 3 * chance for name, chance in trained["chance"].items())
    low, high = (trained["objectives"]["infonce"]["directions"]["mean"][key] for key in ("low", "high"))
    assert low <= trained["objectives"]["unialign"]["directions"]["mean"]["mean"] <= high


SECTIONS = [
    Section("one", "First", ["Words.", Table(["arm", "R@1"], [["a | b", "1.0"]], "A note.")]),
    Section("two", "Second", []),
]


def test_text_is_kept_and_blocks_are_replaced() -> None:
    page = markdown_page("Title", SECTIONS)
    written = page.replace("## First", "## What we found\n\nRead by hand.").replace("1.0", "0.5")
    again = replace_blocks(written, SECTIONS, name="page.md")
    assert "Read by hand." in again
    assert "0.5" not in again
    assert r"| a \| b | 1.0 |" in again
    assert replace_blocks(again, SECTIONS, name="page.md") == again


def test_missing_and_unknown_markers_raise() -> None:
    page = markdown_page("Title", SECTIONS)
    with pytest.raises(DataError, match=r"page\.md has markers for unknown sections: two; the sections are one"):
        replace_blocks(page, SECTIONS[:1], name="page.md")
    with pytest.raises(DataError, match=r"page\.md has no markers for the sections two"):
        replace_blocks(markdown_page("Title", SECTIONS[:1]), SECTIONS, name="page.md")
