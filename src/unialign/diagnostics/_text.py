"""Format a diagnosis as terminal text: findings in words, tables of numbers, and one line for an issue."""

import textwrap
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from unialign._plain_text import count, join_words, table_lines
from unialign._version import __version__
from unialign.diagnostics._finding import SEVERITIES, Finding
from unialign.diagnostics._format import number, percent, size

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


# Column -> cell, from the key of a row and its numbers.
_MODALITY_COLUMNS: dict[str, Callable[[str, Any], str]] = {
    "modality": lambda name, m: name,
    "rows": lambda name, m: f"{m['rows']:,}",
    "dim": lambda name, m: str(m["dim"]),
    "median norm": lambda name, m: size(m["norm"]["median"]) if m["norm"] else "-",
    "mean cosine": lambda name, m: "-" if m["mean_cosine"] is None else _estimate(m["mean_cosine"]),
    "effective rank": lambda name, m: number(m["effective_rank"]),
    "duplicates": lambda name, m: f"{m['duplicate_rows']:,}",
}
_PAIR_COLUMNS: dict[str, Callable[[str, Any], str]] = {
    "pair": lambda name, p: name,
    "items": lambda name, p: f"{p['items']:,}",
    "gap (debiased)": lambda name, p: _estimate(p["modality_gap_debiased"]),
    "gap (raw)": lambda name, p: number(p["modality_gap"]),
    "true-pair cosine": lambda name, p: _estimate(p["true_pair_cosine"]),
    "random-pair cosine": lambda name, p: number(p["random_pair_cosine"]),
}
_DIRECTION_COLUMNS: dict[str, Callable[[str, Any], str]] = {
    "direction": lambda name, d: name,
    "candidates": lambda name, d: f"{d['queries']:,}",
    "R@1": lambda name, d: _percent_estimate(d["recall@1"]),
    "R@10": lambda name, d: _percent_estimate(d["recall@10"]),
    "MRR": lambda name, d: number(d["mrr"]["mean"]),
    "chance R@1": lambda name, d: percent(d["chance"]["recall@1"]),
    "hub skewness": lambda name, d: number(d["hubness"]["skewness"]),
}


def number_lines(numbers: Mapping[str, Any]) -> list[str]:
    """Format tables of modalities, pairs and directions, and the rows that they were measured on."""
    lines = _table(_MODALITY_COLUMNS, numbers["modalities"])
    lines += _table(_PAIR_COLUMNS, {name: p for name, p in numbers["pairs"].items() if "items" in p})
    lines += _table(_DIRECTION_COLUMNS, numbers["directions"])
    whole = numbers["sampled"] == numbers["items"]
    sample = "all items" if whole else f"{numbers['sampled']:,} random items"
    note = f"Rows, norms and duplicates: all rows. Other numbers: {sample}, with [95 % bootstrap intervals]. {_TERMS}"
    return lines + textwrap.wrap(note, _LINE_LENGTH)


def _table(columns: Mapping[str, Callable[[str, Any], str]], rows: Mapping[str, Any]) -> list[str]:
    """Align columns and append an empty line; empty without rows."""
    body = [[cell(name, values) for cell in columns.values()] for name, values in rows.items()]
    return [*table_lines(list(columns), body), ""] if body else []


def _estimate(value: Mapping[str, float]) -> str:
    return f"{number(value['mean'])} [{number(value['low'])}, {number(value['high'])}]"


def _percent_estimate(value: Mapping[str, float]) -> str:
    return f"{percent(value['mean'])} [{100 * value['low']:.1f}, {100 * value['high']:.1f}]"


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
