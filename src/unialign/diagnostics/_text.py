"""Format a diagnosis as terminal text: findings in words, tables of numbers, and one line for an issue."""

import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from unialign._plain_text import count, join_words, table_lines
from unialign._version import __version__
from unialign.diagnostics._finding import SEVERITIES, Finding
from unialign.diagnostics._format import number, percent, size

__all__ = ["answer", "issue_line", "number_lines", "text"]

_LINE_LENGTH, _INDENT = 100, 10


def answer(findings: Sequence[Finding], numbers: Mapping[str, Any]) -> str:
    """Summarize the result in one or two sentences."""
    what = f"{count(numbers['items'], 'item')} in {count(len(numbers['modalities']), 'modality', 'modalities')}"
    tally = Counter(finding.severity for finding in findings)
    if not tally["problem"] and not tally["warning"]:
        notes = f" {count(tally['note'], 'note')} below." if tally["note"] else ""
        limits = "" if len(numbers["modalities"]) > 1 else ", as far as one modality shows"
        return f"Nothing is wrong with these embeddings{limits}: {what}.{notes}"
    parts = [count(tally[s], s) for s in ("problem", "warning") if tally[s]]
    worst = "problem" if tally["problem"] else "warning"
    names = join_words(dict.fromkeys(_headline(f) for f in findings if f.severity == worst))
    return f"{join_words(parts)} in {what}: {names}."


def _headline(finding: Finding) -> str:
    shown = finding.modalities if len(finding.modalities) <= 3 else (*finding.modalities[:3], "...")
    words = _HEADLINES.get(finding.code, finding.code.replace("_", " "))
    return f"{words} ({', '.join(shown)})" if shown else words


_HEADLINES = {
    "constant": "one row for all items",
    "dim_mismatch": "different dims",
    "duplicate_modality": "one modality under two names",
    "duplicates": "duplicate rows",
    "gap": "a gap between modalities",
    "inf": "infinite values",
    "misaligned_block": "blocks of rows that are not paired",
    "modality_gap": "a modality far from the others",
    "nan": "NaN",
    "not_aligned": "modalities that are not aligned",
    "not_paired": "rows that are not paired",
    "random_pairs": "rows with a random counterpart",
    "row_offset": "shifted rows",
    "zero_rows": "rows without direction",
}


def text(findings: Sequence[Finding], numbers: Mapping[str, Any], issue_summary: str) -> str:
    """Format answer, findings with advice, tables, and the line for an issue."""
    lines = [line.strip() for line in _wrap(answer(findings, numbers), "")]
    for finding in findings:
        label = finding.severity.upper() if finding.severity in SEVERITIES[:2] else finding.severity
        lines += ["", *_wrap(finding.text, f"{label:<{_INDENT}}")]
        if finding.advice:
            lines += _wrap(f"Try: {finding.advice}", " " * _INDENT)
    lines += ["", *number_lines(numbers), "", "To paste into an issue:", issue_summary]
    return "\n".join(lines)


def _wrap(words: str, start: str) -> list[str]:
    """Wrap text into indented lines without separating numbers from their percent signs."""
    tied = words.replace(" %", "\u00a0%")
    lines = textwrap.wrap(tied, _LINE_LENGTH, initial_indent=start, subsequent_indent=" " * _INDENT)
    return [line.replace("\u00a0", " ") for line in lines]


_TERMS = (
    "Gap: distance between the mean rows of two modalities (0 to 2); debiased: minus sampling noise. True pair: row i "
    "of both; random pair: rows of different items. R@k: fraction of queries with the right candidate among the "
    "first k; MRR: mean of 1 / its rank. Effective rank: number of directions that hold the variance. Hub skewness: "
    "high if a few candidates are returned for most queries."
)


def number_lines(numbers: Mapping[str, Any]) -> list[str]:
    """Format tables of modalities, pairs and directions, and the rows that they were measured on."""
    lines = _table(
        ["modality", "rows", "dim", "median norm", "mean cosine", "effective rank", "duplicates"],
        (
            [
                name,
                f"{m['rows']:,}",
                str(m["dim"]),
                size(m["norm"]["median"]) if m["norm"] else "-",
                "-" if m["mean_cosine"] is None else _estimate(m["mean_cosine"]),
                number(m["effective_rank"]),
                f"{m['duplicate_rows']:,}",
            ]
            for name, m in numbers["modalities"].items()
        ),
    )
    lines += _table(
        ["pair", "items", "gap (debiased)", "gap (raw)", "true-pair cosine", "random-pair cosine"],
        (
            [
                name,
                f"{p['items']:,}",
                _estimate(p["modality_gap_debiased"]),
                number(p["modality_gap"]),
                _estimate(p["true_pair_cosine"]),
                number(p["random_pair_cosine"]),
            ]
            for name, p in numbers["pairs"].items()
            if "items" in p
        ),
    )
    lines += _table(
        ["direction", "candidates", "R@1", "R@10", "MRR", "chance R@1", "hub skewness"],
        (
            [
                name,
                f"{d['queries']:,}",
                _estimate(d["recall@1"], "percent"),
                _estimate(d["recall@10"], "percent"),
                number(d["mrr"]["mean"]),
                percent(d["chance"]["recall@1"]),
                number(d["hubness"]["skewness"]),
            ]
            for name, d in numbers["directions"].items()
        ),
    )
    sampled, items = numbers["sampled"], numbers["items"]
    whole = "all items" if sampled == items else f"{sampled:,} random items"
    note = f"Rows, norms and duplicates: all rows. Other numbers: {whole}, with [95 % bootstrap intervals]. {_TERMS}"
    lines += textwrap.wrap(note, _LINE_LENGTH)
    return lines


def _estimate(value: Mapping[str, float], unit: str = "number") -> str:
    mean, low, high = value["mean"], value["low"], value["high"]
    if unit == "percent":
        return f"{percent(mean)} [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{number(mean)} [{number(low)}, {number(high)}]"


def _table(head: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    """Align columns and append an empty line; empty without rows."""
    rows = list(body)
    return [*table_lines(head, rows), ""] if rows else []


def issue_line(
    findings: Sequence[Finding],
    numbers: Mapping[str, Any],
    summary: Mapping[str, Mapping[str, float]],
    kinds: Sequence[str],
    fingerprint: str,
) -> str:
    """Summarize version, data, main numbers and serious findings in one line."""
    modalities = numbers["modalities"]
    dims = dict.fromkeys(str(m["dim"]) for m in modalities.values())
    dtypes = dict.fromkeys(m["dtype"] for m in modalities.values())
    parts = [
        f"unialign {__version__} diagnose",
        f"M={len(modalities)} N={numbers['items']} D={'/'.join(dims)} {'/'.join(dtypes)}",
        "+".join(kinds),
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
    cosines = [m["mean_cosine"]["mean"] for m in modalities.values() if m["mean_cosine"] is not None]
    if cosines:
        parts.append(f"mean cos {number(min(cosines))}..{number(max(cosines))}")
    serious = [finding.brief for finding in findings if finding.severity in ("problem", "warning")]
    more = f" +{len(serious) - 6}" if len(serious) > 6 else ""
    parts.append(" ".join(serious[:6]) + more if serious else "healthy")
    parts.append(f"data {fingerprint[:12]}")
    return " | ".join(parts)
