"""Test that every page can be reached, and that every objective and public name is documented."""

import importlib
import importlib.util
import inspect
import re
from pathlib import Path

import pytest
import yaml

from unialign import losses
from unialign.cli import parsers

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
NAMESPACES = (
    "losses",
    "functional",
    "geometry",
    "metrics",
    "data",
    "readers",
    "space",
    "train",
    "config",
    "registry",
    "evaluation",
    "diagnostics",
    "generation",
    "encoders",
    "errors",
)
OPTION = re.compile(r"^\| `(\w+)` \| `([^`]+)` \| (.+) \|$", re.MULTILINE)


class NavLoader(yaml.SafeLoader): ...


NavLoader.add_multi_constructor("tag:", lambda loader, suffix, node: suffix)
NavLoader.add_multi_constructor("!", lambda loader, suffix, node: suffix)


def pages_of(nav):
    for entry in nav:
        value = next(iter(entry.values())) if isinstance(entry, dict) else entry
        yield from pages_of(value) if isinstance(value, list) else [value]


@pytest.fixture(scope="module")
def site():
    return yaml.load((ROOT / "mkdocs.yml").read_text("utf-8"), Loader=NavLoader)


@pytest.fixture(scope="module")
def build():
    """Import `docs/_build.py` by path, since it is not in a package."""
    pytest.importorskip("mkdocs", reason="needs the extra `docs`; `make test` has it")
    spec = importlib.util.spec_from_file_location("docs_build", DOCS / "_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_page_is_in_the_navigation_and_every_entry_exists(site):
    """Pages of findings are excluded, since the build adds them."""
    found = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    listed = list(pages_of(site["nav"]))
    assert sorted(set(listed)) == sorted(listed), "a page is listed twice"
    assert {name for name in found - set(listed) if not name.startswith("findings/")} == set()
    assert set(listed) - found == set()


def test_findings_enter_the_navigation_without_an_edit(site, build, tmp_path, monkeypatch):
    findings = tmp_path / "findings"
    findings.mkdir()
    for name in ("index", "zeta", "ablation"):
        (findings / f"{name}.md").write_text("# Page\n")
    monkeypatch.setattr(build, "HERE", tmp_path)
    config = type("Config", (), {"nav": site["nav"]})()
    nav = build.on_config(config).nav
    chapter = next(entry["Findings"] for entry in nav if "Findings" in entry)
    assert chapter == ["findings/index.md", "findings/ablation.md", "findings/zeta.md"]


def test_the_site_needs_no_network(site):
    assert site["theme"]["font"] is False
    assert "extra_javascript" not in site
    assert all("//" not in path for path in site["extra_css"])


@pytest.mark.parametrize("name", losses.names())
def test_every_objective_has_a_page_that_the_overview_links_to(name):
    page = (DOCS / "objectives" / f"{name}.md").read_text("utf-8")
    overview = (DOCS / "objectives" / "index.md").read_text("utf-8")
    assert f"({name}.md) `{name}` |" in overview
    (row,) = [line for line in overview.splitlines() if f"({name}.md) `{name}` |" in line]
    begins = {"scratch": "yes", "contrastive": "after InfoNCE"}[losses.initialization(name)]
    assert row.split(" | ")[4] == begins, "whether it trains from random weights"
    for heading in ("When to use it", "Settings", "Special cases", "Relations"):
        assert f"\n## {heading}\n" in page
    for part in ("**Reference.**", "**Cost.**", "$$", "**an absent modality**", "**same-id items**", "**one item**"):
        assert part in page, part


@pytest.mark.parametrize("name", losses.names())
def test_settings_on_a_page_are_those_of_the_constructor(name):
    """Tables of published settings must list only parameters of the constructor, with their defaults."""
    rows = OPTION.findall((DOCS / "objectives" / f"{name}.md").read_text("utf-8"))
    assert rows
    needed = {"anchor": "text"} if "anchor" in losses.parameter_names(name) else {}
    parameters = inspect.signature(type(losses.create(name, **needed))).parameters
    for option, default, source in rows:
        assert parameters[option].default == yaml_like(default), option
        assert len(source) > 3


def yaml_like(text):
    if text == "None":
        return None
    value = yaml.safe_load(text.replace("(", "[").replace(")", "]"))
    return tuple(value) if isinstance(value, list) else value


def test_the_reference_shows_every_public_name(build):
    """mkdocstrings shows only names that griffe detects, and griffe could omit names in lazy namespaces."""
    import griffe

    pages = "\n".join(path.read_text("utf-8") for path in (DOCS / "reference").glob("*.md"))
    package = griffe.load("unialign", search_paths=[ROOT / "src"])
    for namespace in NAMESPACES:
        name = f"unialign.{namespace}"
        shown = re.search(rf"^::: {re.escape(name)}\n((?: +.*\n)*)", pages, re.MULTILINE)
        assert shown is not None, name
        assert "members:" not in shown[1], "an explicit list of members would go stale"
        for public in importlib.import_module(name).__all__:
            member = package[namespace].members[public]
            member = member.final_target if member.is_alias else member
            assert member.is_attribute or member.docstring is not None, f"{name}.{public} has no docstring"


def test_the_command_line_page_has_every_command(build):
    page = (DOCS / "reference" / "command-line.md").read_text("utf-8")
    assert build.COMMANDS in page
    text = build.command_help()
    for program in parsers():
        assert f"## `{program}`\n" in text
    assert text.count("usage: ") == len(parsers())


def test_findings_named_in_the_how_to_exist():
    page = (DOCS / "how-to" / "diagnose.md").read_text("utf-8")
    source = "".join(path.read_text("utf-8") for path in (ROOT / "src" / "unialign" / "diagnostics").glob("*.py"))
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", page, re.MULTILINE)
    codes = [code for row in rows for code in re.findall(r"`(\w+)`", row)]
    assert len(codes) > 5
    assert [code for code in codes if f'"{code}"' not in source] == []


def test_formulas_become_mathml(build):
    class Here:
        class file:
            src_uri = "here.md"

    html = r'<p><span class="arithmatex">\(a_i &lt; \log b\)</span></p><div class="arithmatex">\[\sum_i x\]</div>'
    made = build.on_page_content(html, page=Here, config=None, files=None)
    assert made.count("<math") == 2
    assert "arithmatex" not in made
    assert "<mo>&#x0003C;</mo>" in made


def test_a_formula_that_cannot_be_converted_stops_the_build(build):
    from mkdocs.exceptions import PluginError

    with pytest.raises(PluginError, match=r"here\.md.*nosuchcommand"):
        build.mathml(r"\nosuchcommand{x}", False, "here.md")


def test_docstrings_are_read_as_text(build):
    """In docstrings, `<e_n, e_m>` is not an HTML tag, and `x, y:` documents two arguments."""
    text = "mean <a, b> of `<code>`.\n\nArgs:\n    x, y: rows,\n        of any dim.\n    z: one.\n"
    read = build.one_entry_each(build.escaped(text))
    assert read.startswith("mean &lt;a, b> of `<code>`.")
    assert "    x: rows,\n        of any dim.\n    y: rows,\n        of any dim.\n    z: one.\n" in read


def test_pages_opened_from_the_disk_have_a_search():
    """The `offline` plug-in would load a script from another host unless `polyfills` lists a local script."""
    settings = (ROOT / "mkdocs.yml").read_text("utf-8")
    assert re.search(r"^  - offline$", settings, re.MULTILINE)
    (script,) = re.search(r"polyfills: \[(.*?)\]", settings)[1].split(",")
    assert "iframe-worker" in script
    text = (DOCS / script).read_text("utf-8")
    assert "window.IFrameWorker" in text
    assert not re.search(r"https?:", text)
