"""Extend the documentation build: formulas as MathML, `--help` of the command line, the list of findings.

`mkdocs.yml` uses this file as a hook and as a griffe extension. Formulas are MathML, which every current browser
renders without JavaScript.
"""

import html
import inspect
import os
import re
from collections.abc import Iterator
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
# `pymdownx.arithmatex` marks formulas, so that code and emphasis do not change them.
FORMULA = re.compile(r'<(span|div) class="arithmatex">\s*\\([(\[])(.*?)\\[)\]]\s*</\1>', re.DOTALL)
# MathML needs a space between a function's name and its argument, unless the name is the base of a script.
FUNCTION = re.compile(r"(?<!<msup>)(?<!<msub>)(<mi>(?:log|exp|cos|sin|det)</mi>)(?=<m[infrsu])")
# Names that would otherwise be spaced as infix operators.
NAME = re.compile(r"<mo[^>]*>(max|min|det)</mo>")
TIGHT = re.compile(r"<mo>(&#x02192;|&#x02260;|&#x02208;)</mo>")
SECTION = re.compile(r"^((?:Args|Attributes):\n)((?:[ ]+\S.*\n?|\n(?=[ ]))+)", re.MULTILINE)
# An entry with several names, and its continuation lines, which are indented more.
SHARED = re.compile(r"^([ ]{4})(\w+(?:, \w+)+)(:.*(?:\n[ ]{5,}.*)*)", re.MULTILINE)
RAISES_SENTENCE = re.compile(r"^Raises:\n[ ]+(As .*)$", re.MULTILINE)
CODE = re.compile(r"(`+)(?:(?!`).)+?\1", re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the existing pages of findings to the navigation."""
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
    """Convert a formula to MathML; raise an error for an unknown command, which the converter would show as text."""
    made = NAME.sub(r"<mi>\1</mi>", convert(latex, display="block" if block else "inline"))
    made = FUNCTION.sub(r'\1<mspace width="0.17em"/>', made)
    made = TIGHT.sub(r'<mo lspace="0.18em" rspace="0.18em">\1</mo>', made)
    if "\\" in made or re.search(r">\s*&\s*<", made):
        raise PluginError(f"{where}: latex2mathml cannot convert the formula {latex.strip()!r}")
    return f'<div class="formula">{made}</div>' if block else made


def command_help() -> str:
    """Return `--help` of every command as Markdown."""
    from unialign.cli import parsers

    os.environ["COLUMNS"] = "96"
    return "\n".join(f"## `{name}`\n\n```text\n{parser.format_help()}```\n" for name, parser in parsers().items())


class PlainDocstrings(griffe.Extension):
    """Adapt docstrings to mkdocstrings.

    Formulas such as `<e_n, e_m>` are escaped, an entry of several arguments (`x, y: floating (N, D)`) becomes one entry
    each, `Raises:` may contain a sentence (`As retrieval.`), and options of a TypedDict become parameters.
    """

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            if obj.is_class and obj.path.startswith("unialign.config."):
                # The docstring gets the help of the fields when the class is created.
                made = getattr(import_module("unialign.config"), obj.name, None)
                obj.docstring.value = inspect.getdoc(made) or obj.docstring.value
            obj.docstring.value = RAISES_SENTENCE.sub(r"**Raises:** \1", one_entry_each(escaped(obj.docstring.value)))

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        for function in functions_in(pkg):
            name_options(function)


def functions_in(parent: griffe.Object) -> Iterator[griffe.Function]:
    """Yield the functions and methods that a package defines, without those that it imports."""
    for member in parent.members.values():
        if isinstance(member, griffe.Function):
            yield member
        elif isinstance(member, griffe.Module | griffe.Class):
            yield from functions_in(member)


def name_options(function: griffe.Function) -> None:
    """Replace `**options: Unpack[SomeTypedDict]` with the options of that class, which are None by default."""
    parameters = []
    for parameter in function.parameters:
        annotation = parameter.annotation
        if isinstance(annotation, griffe.ExprSubscript) and annotation.canonical_path == "typing.Unpack":
            options = function.modules_collection[annotation.slice.canonical_path]
            parameters += [
                griffe.Parameter(
                    name, annotation=option.annotation, kind=griffe.ParameterKind.keyword_only, default="None"
                )
                for name, option in options.attributes.items()
            ]
        else:
            parameters.append(parameter)
    function.parameters = griffe.Parameters(*parameters)


def escaped(text: str) -> str:
    """Escape `<` outside code in backticks and doctest lines."""
    return "\n".join(line if line.lstrip().startswith((">>>", "...")) else _escaped(line) for line in text.split("\n"))


def _escaped(line: str) -> str:
    parts, end = [], 0
    for code in CODE.finditer(line):
        parts += [line[end : code.start()].replace("<", "&lt;"), code[0]]
        end = code.end()
    return "".join([*parts, line[end:].replace("<", "&lt;")])


def one_entry_each(text: str) -> str:
    """Split entries of several names in `Args:` and `Attributes:` into one entry per name."""
    return SECTION.sub(lambda section: section[1] + SHARED.sub(_repeated, section[2]), text)


def _repeated(entry: re.Match[str]) -> str:
    return "".join(f"{entry[1]}{name.strip()}{entry[3]}\n" for name in entry[2].split(",")).removesuffix("\n")
