"""One self-contained HTML page about a comparison of objectives, and its verdict and table as plain text."""

from unialign.report._page import write_report
from unialign.report._words import text_table, verdict_lines

__all__ = ["text_table", "verdict_lines", "write_report"]
