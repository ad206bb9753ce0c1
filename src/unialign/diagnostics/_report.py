"""`DiagnosisReport`: the result of `diagnose`."""

import dataclasses
import html
from dataclasses import dataclass
from typing import Any

from unialign.diagnostics._finding import SEVERITIES, Finding, Severity
from unialign.diagnostics._text import answer, number_lines, text

_SIGNS = {"problem": "✗", "warning": "▲", "note": "●", "ok": "✓"}
_COLORS = {"problem": "#c62828", "warning": "#b26a00", "note": "#607d8b", "ok": "#2e7d32"}


@dataclass(frozen=True, repr=False)
class DiagnosisReport:
    """Findings about a set of embeddings, and the numbers behind them.

    `print(report.text())` shows everything in a terminal; a notebook shows the findings as a list.

    Attributes:
        findings: `Finding`s, the most severe first.
        numbers: all measurements by modality, pair and direction; estimates are `{"mean", "low", "high"}` with a 95 %
            bootstrap interval.
        summary: metric -> mean and interval over all directions, pairs or modalities.
        issue_summary: one line to paste into an issue.
        fingerprint: sha256 of names, presence and rows.
        details: sources, settings, and the data of the report's plots.
    """

    findings: tuple[Finding, ...]
    numbers: dict[str, Any]
    summary: dict[str, dict[str, float]]
    issue_summary: str
    fingerprint: str
    details: dict[str, Any]

    @property
    def severity(self) -> Severity:
        """Highest severity of the findings: "problem", "warning", "note" or "ok"."""
        return next((s for s in SEVERITIES if any(f.severity == s for f in self.findings)), "ok")

    @property
    def answer(self) -> str:
        """The result in one or two sentences."""
        return answer(self.findings, self.numbers)

    def findings_with(self, code: str) -> tuple[Finding, ...]:
        """Return the findings with a code, such as "modality_gap"."""
        return tuple(finding for finding in self.findings if finding.code == code)

    def text(self) -> str:
        """Return answer, findings with advice, tables of numbers and the issue summary as ASCII text."""
        return text(self.findings, self.numbers, self.issue_summary)

    def to_dict(self) -> dict[str, Any]:
        """Return answer, findings, numbers and issue summary as plain values (NaN where a number is undefined)."""
        return {
            "answer": self.answer,
            "findings": [dataclasses.asdict(finding) for finding in self.findings],
            "numbers": self.numbers,
            "issue_summary": self.issue_summary,
        }

    def __repr__(self) -> str:
        return f"DiagnosisReport({self.answer!r})"

    def _repr_html_(self) -> str:
        items = "".join(
            f'<li style="margin:.4em 0"><b style="color:{_COLORS[f.severity]}">{_SIGNS[f.severity]} {f.severity}</b> '
            f"{html.escape(f.text)}"
            + (f"<br><small>Try: {html.escape(f.advice)}</small>" if f.advice else "")
            + "</li>"
            for f in self.findings
        )
        tables = html.escape("\n".join(number_lines(self.numbers)))
        return (
            f'<p><b>{html.escape(self.answer)}</b></p><ul style="list-style:none;padding:0">{items}</ul>'
            f"<details><summary>Numbers</summary><pre>{tables}</pre></details>"
        )
