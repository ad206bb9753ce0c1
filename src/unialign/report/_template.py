"""How a template is filled: everything is escaped, a missing name is an error, the styles stand in the page."""

from collections.abc import Mapping, Sequence
from importlib.resources import files

import jinja2
from markupsafe import Markup

__all__ = ["fill"]


def fill(template: str, *, styles: Sequence[str] = ("page.css",), context: Mapping[str, object]) -> str:
    """The page that a template of this package makes of `context`; `styles` are names of style sheets beside it."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["tied"] = _tied
    package = files("unialign.report")
    style = "\n".join(package.joinpath(name).read_text(encoding="utf-8") for name in styles)
    source = package.joinpath(template).read_text(encoding="utf-8")
    return environment.from_string(source).render(style=Markup(style), **context)


def _tied(text: str) -> str:
    """Keep a number and its sign on one line, and draw arrows. On the page only: a terminal shows them badly."""
    for plain, shown in ((" %", "\u00a0%"), ("p = ", "p\u00a0=\u00a0"), ("p < ", "p\u00a0<\u00a0"), ("->", "→")):
        text = text.replace(plain, shown)
    return text
