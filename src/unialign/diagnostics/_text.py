"""The answer as text for a terminal: words first, then numbers, then one line to paste."""

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from unialign._version import __version__
from unialign.diagnostics._finding import SEVERITIES, Finding, counted, joined_words, number, percent, size

__all__ = ["answer", "issue_line", "number_lines", "text"]

_WIDTH = 100
_INDENT = 10


def answer(findings: Sequence[Finding], numbers: Mapping[str, Any]) -> str:
    """The whole in one or two sentences."""
    what = f"{counted(numbers['items'], 'item')} in {counted(len(numbers['modalities']), 'modality', 'modalities')}"
    count = Counter(finding.severity for finding in findings)
    if not count["problem"] and not count["warning"]:
        notes = f" {counted(count['note'], 'note')} below." if count["note"] else ""
        where = "with these embeddings" if len(numbers["modalities"]) > 1 else "in what one modality can show"
        return f"Nothing wrong {where}: {what}.{notes}"
    parts = [counted(count[s], s) for s in ("problem", "warning") if count[s]]
    serious = [f for f in findings if f.severity == ("problem" if count["problem"] else "warning")]
    names = joined_words(dict.fromkeys(_spoken(f) for f in serious))
    return f"{joined_words(parts)} in {what}: {names}."


def _spoken(finding: Finding) -> str:
    about = finding.modalities if len(finding.modalities) <= 3 else (*finding.modalities[:3], "...")
    what = _SPOKEN.get(finding.code, finding.code.replace("_", " "))
    return f"{what} ({', '.join(about)})" if about else what


_SPOKEN = {
    "nan": "NaN",
    "inf": "infinite numbers",
    "zero_rows": "rows without direction",
    "constant": "one row for all items",
    "duplicates": "equal rows",
    "modality_gap": "a modality far from the others",
    "gap": "a gap between modalities",
    "not_paired": "rows that are not paired",
    "row_offset": "rows that have slipped",
    "misaligned_block": "blocks of rows that are not paired",
    "random_pairs": "rows with a random partner",
    "not_aligned": "modalities that are not aligned",
    "duplicate_modality": "two modalities that are one",
    "widths": "different widths",
    "hubness": "hubness",
}


def text(findings: Sequence[Finding], numbers: Mapping[str, Any], line: str) -> str:
    """Everything."""
    lines = [line.strip() for line in _wrapped(answer(findings, numbers), "")]
    for finding in findings:
        lines.append("")
        head = f"{finding.severity.upper() if finding.severity in SEVERITIES[:2] else finding.severity:<{_INDENT}}"
        blank = " " * _INDENT
        lines += _wrapped(finding.text, head)
        if finding.advice:
            lines += _wrapped(f"Try: {finding.advice}", blank)
    lines += ["", *number_lines(numbers), "", "To paste into an issue:", line]
    return "\n".join(lines)


def _wrapped(words: str, head: str) -> list[str]:
    """Lines under one indentation; a number stays with its sign."""
    tied = words.replace(" %", "\u00a0%")
    lines = textwrap.wrap(tied, _WIDTH, initial_indent=head, subsequent_indent=" " * _INDENT)
    return [line.replace("\u00a0", " ") for line in lines]


def number_lines(numbers: Mapping[str, Any]) -> list[str]:
    """Tables of modalities, pairs and directions."""
    rows = [["modality", "rows", "width", "norm", "mean cosine", "effective rank", "repeated"]]
    for name, m in numbers["modalities"].items():
        cosine = m["mean_cosine"]
        rows.append(
            [
                name,
                f"{m['rows']:,}",
                str(m["width"]),
                size(m["norm"]["median"]) if m["norm"] else "-",
                "-" if cosine is None else _estimate(cosine),
                number(m["effective_rank"]),
                f"{m['repeated_rows']:,}",
            ]
        )
    lines = _table(rows)
    known = {name: p for name, p in numbers["pairs"].items() if "items" in p}
    if known:
        rows = [["pair", "items", "gap (debiased)", "gap", "true cosine", "random cosine"]]
        for name, p in known.items():
            rows.append(
                [
                    name,
                    f"{p['items']:,}",
                    _estimate(p["modality_gap_debiased"]),
                    number(p["modality_gap"]),
                    _estimate(p["true_pair_cosine"]),
                    number(p["random_pair_cosine"]),
                ]
            )
        lines += ["", *_table(rows)]
    if numbers["directions"]:
        rows = [["direction", "among", "R@1", "R@10", "MRR", "chance R@1", "hub skewness"]]
        for name, d in numbers["directions"].items():
            rows.append(
                [
                    name,
                    f"{d['queries']:,}",
                    _estimate(d["recall@1"], "percent"),
                    _estimate(d["recall@10"], "percent"),
                    number(d["mrr"]["mean"]),
                    percent(d["chance"]["recall@1"]),
                    number(d["hubness"]["skewness"]),
                ]
            )
        lines += ["", *_table(rows)]
    sampled, items = numbers["sampled"], numbers["items"]
    whole = "all items" if sampled == items else f"{sampled:,} items drawn at random"
    lines.append(f"Rows, norms and copies: all rows. Everything else: {whole}; [95 % bootstrap intervals over items].")
    return lines


def _estimate(value: Mapping[str, float], unit: str = "number") -> str:
    mean, low, high = value["mean"], value["low"], value["high"]
    if unit == "percent":
        return f"{percent(mean)} [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{number(mean)} [{number(low)}, {number(high)}]"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[c]) for row in rows) for c in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return lines


def issue_line(
    findings: Sequence[Finding],
    numbers: Mapping[str, Any],
    summary: Mapping[str, Mapping[str, float]],
    kinds: Sequence[str],
    fingerprint: str,
) -> str:
    """One line that says what somebody who helps wants to know."""
    modalities = numbers["modalities"]
    widths = list(dict.fromkeys(m["width"] for m in modalities.values()))
    dtypes = list(dict.fromkeys(m["dtype"] for m in modalities.values()))
    parts = [
        f"unialign {__version__} diagnose",
        f"M={len(modalities)} N={numbers['items']} D={'/'.join(map(str, widths))} {'/'.join(dtypes)}",
        "+".join(kinds),
    ]
    if "recall@1" in summary:
        least = min(numbers["directions"].items(), key=lambda item: item[1]["recall@1"]["mean"])
        parts.append(
            f"R@1 {percent(summary['recall@1']['mean'])} (least {percent(least[1]['recall@1']['mean'])} {least[0]}, "
            f"n={least[1]['queries']}, chance {percent(least[1]['chance']['recall@1'])})"
        )
    if "modality_gap_debiased" in summary:
        parts.append(f"gap {number(summary['modality_gap_debiased']['mean'])}")
        parts.append(f"true cos {number(summary['true_pair_cosine']['mean'])}")
    cosines = [m["mean_cosine"]["mean"] for m in modalities.values() if m["mean_cosine"] is not None]
    if cosines:
        parts.append(f"mean cos {number(min(cosines))}..{number(max(cosines))}")
    serious = [finding.brief for finding in findings if finding.severity in ("problem", "warning")]
    parts.append(
        " ".join(serious[:6]) + (f" +{len(serious) - 6}" if len(serious) > 6 else "") if serious else "healthy"
    )
    parts.append(f"data {fingerprint[:12]}")
    return " | ".join(parts)
