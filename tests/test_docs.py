"""Test that every snippet of the README and the docs runs."""

import os
import re
import shlex
from pathlib import Path

import pytest

from unialign.cli import main

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(page):
    return [(kind, text) for kind, text in BLOCK.findall(page.read_text("utf-8")) if kind in ("python", "sh")]


def case(page):
    name = str(page.relative_to(ROOT))
    marks = [pytest.mark.integrations] if name == "docs/how-to/other-tools.md" else []
    return pytest.param(page, id=name, marks=marks)


@pytest.mark.parametrize("page", [case(p) for p in PAGES if blocks(p)])
def test_snippets_run_in_order(page, tmp_path, monkeypatch, capsys):
    """Run all Python snippets and commands of a page in order, in one temporary folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    names = {"__name__": "__main__"}
    for i, (kind, source) in enumerate(blocks(page)):
        if kind == "python":
            exec(compile(source, f"{page.name}, snippet {i}", "exec"), names)
        else:
            run_commands(source, capsys)


def run_commands(source, capsys):
    for line in source.splitlines():
        words = shlex.split(line, comments=True)
        if not words or words[0] == "make":
            assert words[1:] in ([], ["demo"], ["test"], ["docs"]), line
            continue
        assert words[0] == "unialign", f"{line}: only unialign and make commands are tested"
        assert main(words[1:]) == 0, capsys.readouterr().err


def test_makefile_has_the_commands_of_the_readme():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in ("demo", "test", "docs"):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    assert "make test" in (ROOT / ".ci" / "run").read_text("utf-8")
