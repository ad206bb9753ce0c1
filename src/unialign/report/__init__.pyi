from unialign.report._diagnosis import write_diagnosis_report as write_diagnosis_report
from unialign.report._format import DASH as DASH, Style as Style, count as count, listed as listed, style as style
from unialign.report._generation import write_generation_report as write_generation_report
from unialign.report._page import write_report as write_report
from unialign.report._plot import (
    Dot as Dot,
    Mark as Mark,
    Panel as Panel,
    Place as Place,
    Series as Series,
    dots as dots,
    lines as lines,
    scatter as scatter,
    sheet as sheet,
)
from unialign.report._sections import (
    Figure as Figure,
    Section as Section,
    Table as Table,
    html_page as html_page,
    markdown_page as markdown_page,
    replace_blocks as replace_blocks,
)
from unialign.report._summary import text_table as text_table, verdict_lines as verdict_lines
from unialign.report._tiles import tiles as tiles

__all__ = [
    "Figure",
    "Section",
    "Table",
    "html_page",
    "markdown_page",
    "replace_blocks",
    "text_table",
    "verdict_lines",
    "write_diagnosis_report",
    "write_generation_report",
    "write_report",
]
