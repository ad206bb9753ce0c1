"""`DriftReport`: the result of `diagnose(sources, against=...)`."""

import dataclasses
import html
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from unialign._plain_text import repeat_command, table_lines
from unialign._version import __version__
from unialign.diagnostics._drift_pairs import MatchedItems
from unialign.diagnostics._drift_scan import RowDrift
from unialign.diagnostics._drift_verdict import Verdict, summarize_verdicts
from unialign.diagnostics._drift_words import DriftFacts
from unialign.diagnostics._finding import SEVERITIES, Severity
from unialign.diagnostics._format import number, percent
from unialign.diagnostics._text import INDENT, wrap
from unialign.io import describe_environment

# Number of rows with the lowest cosines that are listed.
_WORST = 10
_QUANTILES = (0.0, 0.001, 0.01, 0.05, 0.5)


@dataclass(frozen=True, repr=False)
class DriftReport:
    """Differences between two versions of the same embeddings.

    Attributes:
        verdicts: modality -> verdict with `kind`, `severity`, `text` and `advice`. The kinds are "identical", "same"
            (float32 arithmetic), "rounded", "truncated" (different width, same first columns), "partly_changed"
            (different preprocessing of some rows), "reordered", "shifted" (by a constant vector), "rotated", "changed"
            (all rows, but related), "different" (a different model), "too_few" (items) and "missing_rows" (rows that
            are valid in the old version only).
        numbers: modality -> measurements: quantiles of the cosines, rows with the lowest cosines, fraction of equal
            rows, scale, and the agreement of the neighborhoods with 95 % intervals.
        notes: remarks on how the rows were matched.
        details: sources, fingerprints and settings.
    """

    verdicts: dict[str, Verdict]
    numbers: dict[str, dict[str, Any]]
    notes: tuple[str, ...]
    details: dict[str, Any]

    @property
    def severity(self) -> Severity:
        """Highest severity of the verdicts: "problem", "warning", "note" or "ok"."""
        return next((s for s in SEVERITIES if any(v.severity == s for v in self.verdicts.values())), "ok")

    @property
    def answer(self) -> str:
        """The verdict on all modalities in one sentence."""
        return summarize_verdicts(self.verdicts)

    @property
    def issue_summary(self) -> str:
        """One-line summary to paste into an issue."""
        parts = [
            f"{name}: {verdict.kind}, n={m['items']}, cos median {number(m['cosine']['0.5'])} min "
            f"{number(m['cosine']['0.0'])}, equal {percent(m['equal'])}"
            for (name, verdict), m in zip(self.verdicts.items(), self.numbers.values(), strict=True)
        ]
        return " | ".join([f"unialign {__version__} diagnose --against", *parts])

    def text(self) -> str:
        """Return the answer, the verdicts with advice, the tables of numbers and the issue summary as ASCII text."""
        lines = [line.strip() for line in wrap(self.answer, "")]
        for name, verdict in self.verdicts.items():
            label = verdict.severity.upper() if verdict.severity in SEVERITIES[:2] else verdict.severity
            lines += ["", *wrap(f"{name}: {verdict.text}", f"{label:<{INDENT}}")]
            if verdict.advice:
                lines += wrap(f"Try: {verdict.advice}", " " * INDENT)
        for note in self.notes:
            lines += ["", *wrap(note, f"{'note':<{INDENT}}")]
        return "\n".join([*lines, "", *_tables(self.numbers), "To paste into an issue:", self.issue_summary])

    def to_dict(self) -> dict[str, Any]:
        """Return answer, verdicts, numbers, notes and issue summary as built-in types; undefined numbers are NaN."""
        return {
            "answer": self.answer,
            "verdicts": {name: dataclasses.asdict(verdict) for name, verdict in self.verdicts.items()},
            "numbers": self.numbers,
            "notes": list(self.notes),
            "issue_summary": self.issue_summary,
        }

    def __repr__(self) -> str:
        return f"DriftReport({self.answer!r})"

    def _repr_html_(self) -> str:
        items = "".join(
            f"<li><b>{html.escape(name)}</b> ({verdict.severity}): {html.escape(verdict.text)} "
            f"<small>{html.escape(verdict.advice)}</small></li>"
            for name, verdict in self.verdicts.items()
        )
        return f"<p><b>{html.escape(self.answer)}</b></p><ul>{items}</ul>"


def describe_modality(facts: DriftFacts, drift: RowDrift, items: MatchedItems, *, absent: int) -> dict[str, Any]:
    cosine = 1 - drift.error_P[drift.valid_P].astype(np.float64)
    quantiles = np.quantile(cosine, _QUANTILES).tolist() if len(cosine) else [float("nan")] * len(_QUANTILES)
    sample = facts.sample
    agreement = {
        key: getattr(sample, key)
        for key in (
            "cosine_agreement", "centered_agreement", "centered_cosine", "random_cosine", "rotated_cosine", "residual",
        )
    }  # fmt: skip
    return {
        "items": facts.items,
        "absent": absent,
        "invalid_old": drift.invalid_old,
        "invalid_new": drift.invalid_new,
        "dims": list(facts.dims),
        "cosine": {str(q): value for q, value in zip(_QUANTILES, quantiles, strict=True)},
        "equal": facts.equal,
        "changed": facts.changed,
        "lost": facts.lost,
        "first_lost": list(facts.first_lost),
        "gained": facts.gained,
        "first_gained": list(facts.first_gained),
        "moved": facts.moved,
        "offset": facts.offset,
        "scale": {"median": facts.scale, "low": facts.low_scale, "high": facts.high_scale},
        "precision": sample.precision,
        "sampled": sample.items,
        "overlap@10": None if sample.overlap is None else sample.overlap.to_dict(),
        "stale_overlap@10": None if sample.stale_overlap is None else sample.stale_overlap.to_dict(),
        **agreement,
        "worst": _worst(drift, items),
    }


def _worst(drift: RowDrift, items: MatchedItems) -> list[dict[str, Any]]:
    error_P = np.where(drift.valid_P, drift.error_P, -1.0)
    count = min(_WORST, len(error_P))
    top = np.argpartition(-error_P, count - 1)[:count] if count else np.zeros(0, np.int64)
    return [
        {
            "old_row": int(items.old_P[p]),
            "new_row": int(items.new_P[p]),
            "id": None if items.ids_P is None else str(items.ids_P[p]),
            "cosine": 1 - float(error_P[p]),
        }
        for p in top[np.argsort(-error_P[top], kind="stable")]
        if error_P[p] > 0
    ]


def _tables(numbers: dict[str, dict[str, Any]]) -> list[str]:
    head = ["modality", "items", "dims", "equal rows", "cosine median", "lowest 1 %", "lowest", "overlap@10"]
    body = [
        [
            name,
            f"{m['items']:,}",
            " -> ".join(dict.fromkeys(map(str, m["dims"]))),
            percent(m["equal"]),
            *(number(m["cosine"][q]) for q in ("0.5", "0.01", "0.0")),
            "-" if m["overlap@10"] is None else percent(m["overlap@10"]["mean"]),
        ]
        for name, m in numbers.items()
    ]
    lines = [*table_lines(head, body), ""]
    for name, m in numbers.items():
        if m["worst"]:
            worst = [[f"{row['new_row']:,}", row["id"] or "-", number(row["cosine"])] for row in m["worst"][:5]]
            lines += [f"Rows of {name} with the lowest cosines:", *table_lines(["row", "id", "cosine"], worst), ""]
    return lines


def make_drift_results(report: DriftReport, *, seconds: float, out: str | os.PathLike[str] = "") -> dict[str, Any]:
    return {
        "schema": 1,
        "kind": "drift",
        "seconds": seconds,
        "data": report.details["modalities"],
        "protocol": {
            "name": "comparison of two versions: all rows are read once; neighborhoods use a random sample of items",
            "neighbors": 10,
            "bootstrap": {**report.details["settings"], "unit": "items"},
        },
        "environment": describe_environment(),
        "severity": report.severity,
        "reproduce": repeat_command("diagnose", out),
        **report.to_dict(),
    }
