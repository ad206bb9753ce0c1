"""Findings about the space: pairing, collapse, gap, retrieval, hubs. Pure functions of the numbers."""

import math
from dataclasses import replace

import numpy as np

from unialign.diagnostics._finding import Finding, Severity, joined_words, number, percent, span
from unialign.diagnostics._findings_pairing import pairing_findings
from unialign.diagnostics._findings_retrieval import hubby, retrieval_findings, weak
from unialign.diagnostics._measure import Measured
from unialign.diagnostics._rules import Pairs, collapsed, recalls
from unialign.diagnostics._thresholds import (
    ALIKE,
    COLLAPSED,
    CONE,
    FAR_RATIO,
    FLAT_RANK,
    FLAT_SHARE,
    GAP_COST,
    GAP_NOTE,
    GAP_SHARE,
    GAP_WARNING,
    GOOD_RECALL,
)

__all__ = ["space_findings"]


def space_findings(measured: Measured) -> list[Finding]:
    """All findings that need the sample's geometry."""
    found = _collapse(measured)
    found += pairing_findings(measured)
    found += _gap(measured)
    found += retrieval_findings(measured)
    found = _folded(found, measured)
    if measured.label_map is not None:
        value, chance = measured.label_map
        text = f"Items of the same label across modalities: mAP {percent(value)}, {percent(chance)} by chance."
        found.append(Finding("labels", "note", (), text))
    return found


def _folded(found: list[Finding], measured: Measured) -> list[Finding]:
    """What follows from a modality that is far from the others, said as one line under it and not as faults beside."""
    for cause in [f for f in found if f.code == "modality_gap"]:
        (name,) = cause.modalities
        follows = [f for f in found if f.severity == "warning" and f.code in _FOLLOWS and _about(f, name, measured)]
        if follows:
            words = joined_words(dict.fromkeys(_FOLLOWS[f.code] for f in follows))
            told = replace(cause, text=f"{cause.text} With it come {words}.")
            found = [told if f is cause else f for f in found if f not in follows]
    return found


def _about(finding: Finding, name: str, measured: Measured) -> bool:
    """Whether it is all about a modality; a hub or a weak direction elsewhere has a cause of its own."""
    if finding.code == "anisotropy":
        return finding.modalities == (name,)
    if finding.code == "uneven_retrieval":
        return name in finding.modalities
    bad = weak if finding.code == "weak_retrieval" else hubby
    return all(name in pair for pair, p in measured.pairs.items() if any(bad(d) for d in p.directions.values()))


_FOLLOWS = {
    "anisotropy": "a narrow cone",
    "uneven_retrieval": "retrieval that works in one direction only",
    "weak_retrieval": "weak retrieval",
    "hubness": "hubness",
}


# --- collapse ----------------------------------------------------------------------------------------------------


def _collapse(measured: Measured) -> list[Finding]:
    found = []
    for name, single in measured.singles.items():
        if single.cosine is None or single.copies.distinct == 1:
            continue
        cosine, reached = single.cosine, recalls(measured, name)
        works = bool(reached) and min(reached) >= GOOD_RECALL
        if cosine.mean >= CONE:
            deep = cosine.mean >= COLLAPSED
            what = "has collapsed" if deep and not works else "lies in a narrow cone"
            text = f"{name} {what}: two random rows have a mean cosine of {span(cosine)}."
            text += f" Ranks still work (R@1 {percent(min(reached))} or more)." if works else _suffering(measured, name)
            if deep and not works:
                text += " Pairing, gap and retrieval with it cannot be judged."
            advice = (
                f"A cosine of {number(cosine.mean)} means nothing here, judge cosines against that value; subtracting "
                "the mean of the training rows often helps at once, a uniformity term in training "
                '(ua.losses.UniAlign(preset="balanced")) cures it.'
            )
            if deep and not works:
                advice = (
                    "Look at the training: a loss at ln(batch size), a dead encoder, a temperature at its bound, or no "
                    'term that pushes apart; ua.losses.UniAlign(preset="balanced") has a uniformity term for each '
                    "modality."
                )
            severity: Severity = "note" if works and not deep else "problem" if deep and not works else "warning"
            found.append(Finding("collapsed" if deep else "anisotropy", severity, (name,), text, advice))
        elif single.rank < FLAT_RANK or single.rank < FLAT_SHARE * single.possible_rank:
            text = (
                f"{name} is nearly flat: {number(single.rank)} directions of {single.possible_rank:,} hold its "
                "variance (effective rank of the centred rows)."
            )
            advice = (
                "Few directions tell few items apart: more varied training pairs, a smaller weight decay or a "
                "uniformity term spread it; if it is meant to be so, a smaller width is enough."
            )
            found.append(Finding("low_rank", "warning" if single.possible_rank >= 8 else "note", (name,), text, advice))
    spread = [s for s in measured.singles.values() if s.cosine is not None]
    if spread and not found and all(s.copies.distinct > 1 for s in spread):
        most = max((s.cosine.mean for s in spread if s.cosine is not None), default=math.nan)
        ranks = [s.rank for s in spread]
        text = (
            f"No modality has collapsed: random rows have a mean cosine of at most {number(most)}, effective ranks are "
            f"{number(min(ranks))} to {number(max(ranks))} of {max(s.possible_rank for s in spread):,}."
        )
        found.append(Finding("collapse", "ok", (), text))
    return found


def _suffering(measured: Measured, name: str) -> str:
    """What a collapsed modality does to retrieval, with it as query and as gallery."""
    asks: list[tuple[float, str, int]] = []
    answers: list[tuple[float, str, int]] = []
    for pair, p in measured.pairs.items():
        if name in pair:
            for direction, d in p.directions.items():
                (asks if direction.startswith(f"{name}->") else answers).append(
                    (d.recall[1].mean, direction, d.queries)
                )
    if not asks:
        return ""
    ask, answer = min(asks), min(answers)
    return (
        f" R@1 asking with it is {percent(ask[0])} ({ask[1]}), asking for it {percent(answer[0])} ({answer[1]}) among "
        f"{ask[2]:,} sampled candidates."
    )


# --- gap ---------------------------------------------------------------------------------------------------------


def _gap(measured: Measured) -> list[Finding]:
    judged = {
        (a, b): p
        for (a, b), p in measured.pairs.items()
        if p.identical < ALIKE and not collapsed(measured, a) and not collapsed(measured, b)
    }
    if not judged:
        return []
    found = []
    left = dict(judged)
    names = list(dict.fromkeys(name for pair in judged for name in pair))
    for name in names:
        own = {pair: p for pair, p in judged.items() if name in pair}
        rest = [p.gap.mean for pair, p in judged.items() if name not in pair]
        nearest = min(p.gap.mean for p in own.values())
        if rest and len(own) == len(names) - 1 and nearest >= GAP_NOTE and nearest > FAR_RATIO * max(rest):
            found.append(_gap_finding((name,), own, max(rest)))
            left = {pair: p for pair, p in left.items() if name not in pair}
    wide = {pair: p for pair, p in left.items() if p.gap.mean >= GAP_NOTE and p.gap.low > 0}
    if wide:
        found.append(_gap_finding(tuple(dict.fromkeys(n for pair in wide for n in pair)), wide, None))
    if not found:
        largest = max(judged.values(), key=lambda p: p.gap.mean)
        which = "modalities" if len(judged) == len(measured.pairs) else "the other modalities"
        text = f"No gap between {which}: their means are at most {span(largest.gap)} apart (debiased; 2 is opposite)."
        found.append(Finding("gap", "ok", (), text))
    return found


def _gap_finding(names: tuple[str, ...], pairs: Pairs, rest: float | None) -> Finding:
    pair = max(pairs.values(), key=lambda p: p.gap.mean)
    (a, b) = next(key for key, p in pairs.items() if p is pair)
    if rest is not None:
        text = (
            f"{names[0]} lies apart from the others: its mean is up to {span(pair.gap)} away (from "
            f"{b if names[0] == a else a}), while theirs are within {number(rest)} of each other."
        )
    else:
        text = f"Modalities lie apart: the means of {a} and {b} are {span(pair.gap)} from each other"
        text += "." if len(pairs) == 1 else f", the widest of {len(pairs)} such pairs among {joined_words(names)}."
    text += f" The offset is {percent(pair.gap_share)} of a true pair's squared distance."
    gain = _gain(pairs)
    if gain is not None:
        direction, before, after = gain
        text += (
            f" It costs retrieval: subtracting each modality's mean lifts R@1 of {direction} from {percent(before)} to "
            f"{percent(after)}."
        )
        severity: Severity = "problem"
    else:
        text += " Ranks within one modality's gallery hardly change when it is taken away."
        severity = "warning" if pair.gap.mean >= GAP_WARNING or pair.gap_share >= GAP_SHARE else "note"
    advice = (
        "A gallery that mixes modalities will answer with the query's own. Subtract each modality's mean (of training "
        "rows) and normalise again; when training, a larger temperature and a loss that pushes apart within modalities "
        "only (ua.losses.UniAlign) close the gap."
    )
    return Finding("modality_gap" if rest is not None else "gap", severity, names, text, advice)


def _gain(pairs: Pairs) -> tuple[str, float, float] | None:
    """The direction that gains most by centring, if it gains enough and reliably."""
    best: tuple[float, str, float, float] | None = None
    for pair in pairs.values():
        for name, after in pair.centred.items():
            before = pair.directions[name].recall[1]
            difference_R = after.values_R - before.values_R
            gain = after.mean - before.mean
            if gain >= GAP_COST and float(np.nanquantile(difference_R.numpy(), 0.025)) > 0:
                best = max(best or (0.0, "", 0.0, 0.0), (gain, name, before.mean, after.mean))
    return None if best is None else best[1:]
