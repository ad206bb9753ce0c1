"""Render templates with escaped values and embedded style sheets."""

from collections.abc import Mapping, Sequence
from importlib.resources import files

import jinja2
from markupsafe import Markup, escape


def fill(
    template: str,
    *,
    context: Mapping[str, object],
    styles: Sequence[str] = ("page.css",),
    package: str = "unialign.report",
) -> str:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"tied": _tied, "marked": _marked}
    own = files("unialign.report")
    style = "\n".join(own.joinpath(name).read_text(encoding="utf-8") for name in styles)
    source = files(package).joinpath(template).read_text(encoding="utf-8")
    return environment.from_string(source).render(style=Markup(style), **context)


def _marked(text: str) -> Markup:
    """Format parts in backticks as code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # an unpaired backtick is an ordinary character
        return escape(text)
    return Markup("").join(Markup("<code>{}</code>").format(part) if i % 2 else part for i, part in enumerate(parts))


def _tied(text: str) -> str:
    """Insert non-breaking spaces between numbers and signs, and replace `->` with arrows."""
    for plain, shown in ((" %", "\u00a0%"), ("p = ", "p\u00a0=\u00a0"), ("p < ", "p\u00a0<\u00a0"), ("->", "→")):
        text = text.replace(plain, shown)
    return text
