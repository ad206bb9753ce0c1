"""Test that every snippet of the README and the docs runs."""

import os
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from unialign.cli import main
from unialign.named_data import tuxpaint

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
    if "unialign data prepare tuxpaint" in page.read_text("utf-8"):
        stamps = write_stamps(tmp_path.parent / f"{tmp_path.name}-stamps")
        monkeypatch.setattr(tuxpaint, "DATA", replace(tuxpaint.DATA, folder=stamps, counts={}))
    names = {"__name__": "__main__"}
    for i, (kind, source) in enumerate(blocks(page)):
        if kind == "python":
            exec(compile(source, f"{page.name}, snippet {i}", "exec"), names)
        else:
            run_commands(source, capsys)


def write_stamps(folder):
    """Write 80 small stamps in the layout of the package of Tux Paint, which is not installed everywhere."""
    image = pytest.importorskip("PIL.Image")
    soundfile = pytest.importorskip("soundfile")
    time = np.arange(4000) / 8000
    for i, color in enumerate(["red", "orange", "gold", "green", "cyan", "blue", "purple", "pink"]):
        for j, thing in enumerate(["cat", "dog", "ship", "tree", "house", "moon", "car", "rose", "drum", "key"]):
            stem = folder / ("animals" if j < 2 else "things") / f"{color}_{thing}"
            stem.parent.mkdir(parents=True, exist_ok=True)
            image.new("RGB", (24 + 4 * j, 32), color).save(f"{stem}.png")
            Path(f"{stem}.txt").write_text(f"A {color} {thing}.\nfr.utf8=...\n", "utf-8")
            tone = np.sin(2 * np.pi * 220 * 2 ** (i / 4) * time) + np.sin(2 * np.pi * 1500 * 2 ** (j / 5) * time)
            soundfile.write(f"{stem}_desc_fr.ogg", 0.2 * tone, 8000)
    return folder


def run_commands(source, capsys):
    for line in source.splitlines():
        words = shlex.split(line, comments=True)
        if not words or words[0] == "make":
            assert words[1:] in ([], ["demo"], ["test"], ["docs"]), line
            continue
        assert words[0] == "unialign", f"{line}: only unialign and make commands are tested"
        assert main(words[1:]) == 0, capsys.readouterr().err


EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.md"))


@pytest.mark.parametrize("page", [pytest.param(p, id=p.stem) for p in EXAMPLES if p.stem != "index"])
def test_every_example_ends_with_a_score_above_chance_and_a_loaded_space(page):
    """`test_snippets_run_in_order` runs the comparison."""
    last = [text for kind, text in blocks(page) if kind == "python" and "ua.Space.from_pretrained" in text][-1]
    assert re.search(r"^assert low > .*found\.chance\[", last, re.MULTILINE)
    assert "space.encode(" in page.read_text("utf-8").split(last)[-1] + last
    assert f"({page.name})" in (page.parent / "index.md").read_text("utf-8")


def test_makefile_has_the_commands_of_the_readme():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in ("demo", "test", "docs"):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    assert "make test" in (ROOT / ".ci" / "run").read_text("utf-8")
