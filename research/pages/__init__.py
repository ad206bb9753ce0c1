"""Write pages of studies with paragraphs, tables and figures, as Markdown and as an HTML file."""

from research.pages._plot import Dot, Mark, Panel, Point, Series, dots, lines, scatter, sheet
from research.pages._sections import Figure, Section, Table, figure, html_page, markdown_page, replace_blocks
from research.pages._tiles import tiles

__all__ = [
    "Dot",
    "Figure",
    "Mark",
    "Panel",
    "Point",
    "Section",
    "Series",
    "Table",
    "dots",
    "figure",
    "html_page",
    "lines",
    "markdown_page",
    "replace_blocks",
    "scatter",
    "sheet",
    "tiles",
]
