"""Test that the reliability page lists existing tests."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "reliability.md").read_text("utf-8")
ROW = re.compile(r"^\| (\d+)\. (.+) \| (.+) \|$", re.MULTILINE)


def test_every_guarantee_has_a_test_or_a_reason():
    rows = ROW.findall(PAGE)
    assert [int(number) for number, _, _ in rows] == list(range(1, 31))
    for number, _, tests in rows:
        assert "`tests/" in tests or "not supported: " in tests, number


def test_every_test_that_is_named_exists():
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
    assert len(named) > 60
    for file, name in named:
        source = (ROOT / file).read_text("utf-8")
        assert re.search(rf"^def {name}\(", source, re.MULTILINE), f"{file}::{name}"
