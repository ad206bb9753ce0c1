"""Write pages with paragraphs, tables and figures, as Markdown between markers and as an HTML file."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from research.pages._plot import Mark, Panel, sheet
from unialign.errors import DataError
from unialign.report import fill

__all__ = ["Figure", "Section", "Table", "figure", "html_page", "markdown_page", "replace_blocks"]

_BLOCK = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- /generated -->)", re.DOTALL)


@dataclass(frozen=True)
class Table:
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Figure:
    name: str
    title: str
    drawing: Markup
    note: str = ""


@dataclass(frozen=True)
class Section:
    """The content is written between markers; strings are paragraphs."""

    key: str
    title: str
    parts: Sequence[str | Table | Figure]

    @property
    def figures(self) -> list[Figure]:
        return [part for part in self.parts if isinstance(part, Figure)]


def figure(
    name: str,
    title: str,
    note: str,
    panels: Sequence[Panel],
    *,
    heading: str = "",
    columns: int = 2,
    legend: Sequence[Mark] = (),
) -> Figure:
    return Figure(name, title, sheet(name, heading or title, panels, columns=columns, legend=legend), note)


def markdown_page(title: str, sections: Sequence[Section]) -> str:
    blocks = [f"## {s.title}\n\n<!-- generated: {s.key} -->\n{markdown(s)}<!-- /generated -->\n" for s in sections]
    return f"# {title}\n\n" + "\n".join(blocks)


def replace_blocks(page: str, sections: Sequence[Section], *, name: str) -> str:
    """Keep all text outside of the markers."""
    known = {section.key: section for section in sections}
    placed = [key for _, key, _ in _BLOCK.findall(page)]
    for what, odd in (
        ("has markers for unknown sections:", set(placed) - set(known)),
        ("has no markers for the sections", set(known) - set(placed)),
    ):
        if odd:
            raise DataError(f"{name} {what} {', '.join(sorted(odd))}; the sections are {', '.join(known)}")
    return _BLOCK.sub(lambda found: found[1] + markdown(known[found[2]]) + found[3], page)


def markdown(section: Section) -> str:
    return "\n" + "".join(f"{_markdown(part)}\n\n" for part in section.parts)


def _markdown(part: str | Table | Figure) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Figure):
        note = f"\n\n*{part.note}*" if part.note else ""
        return f"![{part.title}](figures/{part.name}.svg){note}"
    rows = [part.head, ["---", *["---:"] * (len(part.head) - 1)], *part.rows]
    table = "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)
    return table + (f"\n\n*{part.note}*" if part.note else "")


def html_page(title: str, *, kicker: str, facts: Sequence[str], sections: Sequence[Section], reproduce: str) -> str:
    context: Mapping[str, object] = {
        "title": title,
        "kicker": kicker,
        "facts": facts,
        "sections": [
            {"key": s.key, "title": s.title, "parts": [{"kind": type(p).__name__, "it": p} for p in s.parts]}
            for s in sections
        ],
        "reproduce": reproduce,
    }
    return fill("study.html.j2", package="research.pages", context=context)
