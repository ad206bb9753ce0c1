"""Format results as HTML tables for notebooks."""

from collections.abc import Iterable, Sequence

from markupsafe import escape


def html_table(
    body: Iterable[Sequence[object]], *, head: Sequence[str] = (), caption: str = "", titles: Sequence[str] = ()
) -> str:
    """Text is escaped; `markupsafe.Markup` is inserted unchanged. `titles` are the tooltips of the rows."""
    above = f"<caption>{escape(caption)}</caption>" if caption else ""
    if head:
        above += f"<tr>{''.join(f'<th>{escape(word)}</th>' for word in head)}</tr>"
    rows = []
    for number, (first, *rest) in enumerate(body):
        title = f' title="{escape(titles[number])}"' if titles else ""
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        rows.append(f'<tr{title}><th style="text-align: left">{escape(first)}</th>{cells}</tr>')
    return f"<table>{above}{''.join(rows)}</table>"
