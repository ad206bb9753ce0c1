"""Self-contained HTML pages about results, and what they say as plain text.

`write_report` is about a comparison of objectives, `write_diagnosis_report` about embeddings that somebody has. Studies
build their pages of sections, tables and figures.
"""

from unialign.report._diagnosis import write_diagnosis_report
from unialign.report._generation import write_generation_report
from unialign.report._page import write_report
from unialign.report._sections import Figure, Section, Table, html_page, markdown_page, replace_blocks
from unialign.report._summary import text_table, verdict_lines

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
