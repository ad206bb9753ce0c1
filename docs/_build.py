"""What the documentation needs beyond Markdown: formulas as MathML, the command line's help, the list of findings.

`mkdocs.yml` names this file as a hook and as an extension of the docstring reader. Nothing here runs in a reader's
browser: a formula is MathML in the page, which every current browser draws by itself.
"""

import html
import inspect
import os
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import griffe
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

HERE = Path(__file__).resolve().parent
COMMANDS = "<!-- commands -->"
# `pymdownx.arithmatex` has found the formulas and kept them apart from code and emphasis.
FORMULA = re.compile(r'<(span|div) class="arithmatex">\s*\\([(\[])(.*?)\\[)\]]\s*</\1>', re.DOTALL)
# A function's name and what follows it touch in MathML, which TeX sets apart; as a base of a script it stays alone.
FUNCTION = re.compile(r"(?<!<msup>)(?<!<msub>)(<mi>(?:log|exp|cos|sin|det)</mi>)(?=<m[infrsu])")
# Operators that would get the wide spaces of an infix one.
NAME = re.compile(r"<mo[^>]*>(max|min|det)</mo>")
TIGHT = re.compile(r"<mo>(&#x02192;|&#x02260;|&#x02208;)</mo>")
SECTION = re.compile(r"^((?:Args|Attributes):\n)((?:[ ]+\S.*\n?|\n(?=[ ]))+)", re.MULTILINE)
# An entry with several names, and its continuation lines, which are indented more.
SHARED = re.compile(r"^([ ]{4})(\w+(?:, \w+)+)(:.*(?:\n[ ]{5,}.*)*)", re.MULTILINE)
RAISES_SENTENCE = re.compile(r"^Raises:\n[ ]+(As .*)$", re.MULTILINE)
CODE = re.compile(r"(`+)(?:(?!`).)+?\1", re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the findings that exist into the navigation: their pages come and go with the studies."""
    pages = sorted(path.name for path in (HERE / "findings").glob("*.md") if path.name != "index.md")
    for entry in config.nav or []:
        if "Findings" in entry:
            entry["Findings"] = ["findings/index.md", *(f"findings/{name}" for name in pages)]
    return config


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    return markdown.replace(COMMANDS, command_help()) if COMMANDS in markdown else markdown


def on_page_content(content: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    return FORMULA.sub(lambda found: mathml(html.unescape(found[3]), found[2] == "[", page.file.src_uri), content)


def mathml(latex: str, block: bool, where: str) -> str:
    """A formula as MathML; an unknown command is an error, as the converter would print it as text."""
    made = NAME.sub(r"<mi>\1</mi>", convert(latex, display="block" if block else "inline"))
    made = FUNCTION.sub(r'\1<mspace width="0.17em"/>', made)
    made = TIGHT.sub(r'<mo lspace="0.18em" rspace="0.18em">\1</mo>', made)
    if "\\" in made or re.search(r">\s*&\s*<", made):
        raise PluginError(f"{where}: the formula {latex.strip()!r} has something that latex2mathml does not know")
    return f'<div class="formula">{made}</div>' if block else made


def command_help() -> str:
    """`--help` of every command, as Markdown."""
    from unialign.cli import parsers

    os.environ["COLUMNS"] = "96"
    return "\n".join(f"## `{name}`\n\n```text\n{parser.format_help()}```\n" for name, parser in parsers().items())


class PlainDocstrings(griffe.Extension):
    """Reads docstrings as they are written here.

    They are plain text with formulas such as `<e_n, e_m>`, which is no HTML. One entry may describe several arguments
    (`x, y: floating (N, D)`), which becomes an entry for each. `Raises:` may be a sentence (`As retrieval.`).
    """

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            if obj.is_class and obj.path.startswith("unialign.config."):
                # The help texts of the fields become part of the docstring when the class is made.
                made = getattr(import_module("unialign.config"), obj.name, None)
                obj.docstring.value = inspect.getdoc(made) or obj.docstring.value
            obj.docstring.value = RAISES_SENTENCE.sub(r"**Raises:** \1", one_entry_each(escaped(obj.docstring.value)))


def escaped(text: str) -> str:
    """No `<` opens a tag; code in backticks and doctest lines stay as they are."""
    return "\n".join(line if line.lstrip().startswith((">>>", "...")) else _escaped(line) for line in text.split("\n"))


def _escaped(line: str) -> str:
    pieces, end = [], 0
    for code in CODE.finditer(line):
        pieces += [line[end : code.start()].replace("<", "&lt;"), code[0]]
        end = code.end()
    return "".join([*pieces, line[end:].replace("<", "&lt;")])


def one_entry_each(text: str) -> str:
    """In `Args:` and `Attributes:`, repeat an entry of several names for each of them."""
    return SECTION.sub(lambda section: section[1] + SHARED.sub(_repeated, section[2]), text)


def _repeated(entry: re.Match[str]) -> str:
    return "".join(f"{entry[1]}{name.strip()}{entry[3]}\n" for name in entry[2].split(",")).removesuffix("\n")
