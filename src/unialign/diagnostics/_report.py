"""`DiagnosisReport`: the result of `diagnose`."""

import dataclasses
import html
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unialign._plain_text import count, join_words
from unialign._version import __version__
from unialign.diagnostics._finding import SEVERITIES, Finding, Severity
from unialign.diagnostics._format import number, percent
from unialign.diagnostics._text import INDENT, number_lines, wrap

if TYPE_CHECKING:
    from unialign.report import Plot

_SIGNS = {"problem": "✗", "warning": "▲", "note": "●", "ok": "✓"}
_COLORS = {"problem": "#c62828", "warning": "#b26a00", "note": "#607d8b", "ok": "#2e7d32"}


@dataclass(frozen=True, repr=False)
class DiagnosisReport:
    """Findings about a set of embeddings, and the measurements that support them.

    `print(report.text())` prints the full report; in a notebook, the object is displayed as a list of findings.

    Attributes:
        findings: `Finding`s, the most severe first.
        numbers: all measurements by modality, pair and direction; estimates are `{"mean", "low", "high"}` with a 95 %
            bootstrap interval.
        summary: metric -> mean and interval over all directions, pairs or modalities.
        fingerprint: SHA-256 of the names, presence and rows.
        details: sources, settings, and the data of the report's plots.
        proposed_ids: (N,) ids shared by items whose rows are equal or nearly equal in a modality; None if there are no
            such items. Pass this array as `ids` if these items have the same meaning.
    """

    findings: tuple[Finding, ...]
    numbers: dict[str, Any]
    summary: dict[str, dict[str, float]]
    fingerprint: str
    details: dict[str, Any]
    proposed_ids: NDArray[np.int64] | None = None

    @property
    def severity(self) -> Severity:
        """Highest severity of the findings: "problem", "warning", "note" or "ok"."""
        return next((s for s in SEVERITIES if any(f.severity == s for f in self.findings)), "ok")

    @property
    def answer(self) -> str:
        """Summary of the diagnosis in one or two sentences."""
        items, modalities = self.numbers["items"], len(self.numbers["modalities"])
        size = f"{count(items, 'item')} in {count(modalities, 'modality', 'modalities')}"
        tally = Counter(finding.severity for finding in self.findings)
        if not tally["problem"] and not tally["warning"]:
            notes = f" {count(tally['note'], 'note')} below." if tally["note"] else ""
            few = any(not finding.modalities for finding in self.findings_with("few_items"))
            limits = ", as far as few items can show" if few else ""
            limits = limits if modalities > 1 else ", as far as one modality can show"
            return f"No problems were found in these embeddings{limits}: {size}.{notes}"
        counts = join_words(count(tally[s], s) for s in ("problem", "warning") if tally[s])
        names = join_words(dict.fromkeys(_headline(f) for f in self.findings if f.severity == self.severity))
        return f"{counts} in {size}: {names}."

    @property
    def issue_summary(self) -> str:
        """One-line summary to paste into an issue: version, data, main numbers and serious findings."""
        numbers, summary, modalities = self.numbers, self.summary, self.numbers["modalities"].values()
        dims = dict.fromkeys(str(m["dim"]) for m in modalities)
        dtypes = dict.fromkeys(m["dtype"] for m in modalities)
        parts = [
            f"unialign {__version__} diagnose",
            f"M={len(modalities)} N={numbers['items']} D={'/'.join(dims)} {'/'.join(dtypes)}",
            "+".join(self.details["kinds"]),
        ]
        if "recall@1" in summary:
            name, worst = min(numbers["directions"].items(), key=lambda item: item[1]["recall@1"]["mean"])
            parts.append(
                f"R@1 {percent(summary['recall@1']['mean'])} (lowest {percent(worst['recall@1']['mean'])} {name}, "
                f"n={worst['queries']}, chance {percent(worst['chance']['recall@1'])})"
            )
        if "modality_gap_debiased" in summary:
            parts.append(f"gap {number(summary['modality_gap_debiased']['mean'])}")
            parts.append(f"true cos {number(summary['true_pair_cosine']['mean'])}")
        cosines = [m["mean_cosine"]["mean"] for m in modalities if m["mean_cosine"] is not None]
        if cosines:
            parts.append(f"mean cos {number(min(cosines))}..{number(max(cosines))}")
        serious = [finding.brief for finding in self.findings if finding.severity in ("problem", "warning")]
        more = f" +{len(serious) - 6}" if len(serious) > 6 else ""
        parts.append(" ".join(serious[:6]) + more if serious else "healthy")
        return " | ".join([*parts, f"data {self.fingerprint[:12]}"])

    def findings_with(self, code: str) -> tuple[Finding, ...]:
        """Return the findings with a code, such as "modality_gap"."""
        return tuple(finding for finding in self.findings if finding.code == code)

    def text(self) -> str:
        """Return the answer, the findings with advice, the tables of numbers and the issue summary as ASCII text."""
        lines = [line.strip() for line in wrap(self.answer, "")]
        for finding in self.findings:
            label = finding.severity.upper() if finding.severity in SEVERITIES[:2] else finding.severity
            lines += ["", *wrap(finding.text, f"{label:<{INDENT}}")]
            if finding.advice:
                lines += wrap(f"Try: {finding.advice}", " " * INDENT)
        lines += ["", *number_lines(self.numbers), "", "To paste into an issue:", self.issue_summary]
        return "\n".join(lines)

    def plot_map(self) -> "Plot":
        """Return a map of the sample on its two principal axes; a notebook displays it, and `save` writes it as SVG.

        Raises:
            DataError: the map is undefined, since the dims differ or fewer than 3 items are valid.
        """
        from unialign.report import plot_map

        return plot_map(self.details["sketch"])

    def plot_recall(self) -> "Plot":
        """Return the R@1 of each direction as a heat map.

        Raises:
            DataError: retrieval was not measured in any direction.
        """
        from unialign.report import plot_recall

        return plot_recall({name: d["recall@1"]["mean"] for name, d in self.numbers["directions"].items()})

    def plot_cosines(self) -> "Plot":
        """Return histograms of the cosines of true and random pairs, one for each pair of modalities.

        Raises:
            DataError: fewer than two modalities are given, or their dims differ.
        """
        from unialign.report import plot_cosines

        return plot_cosines(self.details["sketch"])

    def to_dict(self) -> dict[str, Any]:
        """Return the answer, findings, numbers and issue summary as built-in types; undefined numbers are NaN."""
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


def _headline(finding: Finding) -> str:
    shown = finding.modalities if len(finding.modalities) <= 3 else (*finding.modalities[:3], "...")
    words = _HEADLINES.get(finding.code, finding.code.replace("_", " "))
    return f"{words} ({', '.join(shown)})" if shown else words


_HEADLINES = {
    "constant": "one row for all items",
    "copied_modality": "copies of one modality",
    "dim_mismatch": "different dims",
    "distribution_gap": "distributions that differ",
    "duplicate_modality": "one modality under two names",
    "duplicates": "duplicate rows",
    "gap": "a gap between modalities",
    "inf": "infinite values",
    "misaligned_block": "blocks of rows that are not paired",
    "modality_bias": "queries that find their own modality first",
    "modality_gap": "a modality far from the others",
    "nan": "NaN",
    "near_duplicates": "nearly equal rows",
    "not_aligned": "modalities that are not aligned",
    "not_paired": "rows that are not paired",
    "random_pairs": "rows with a random counterpart",
    "row_offset": "shifted rows",
    "shared_component": "a component that all rows share",
    "zero_rows": "rows without direction",
}
