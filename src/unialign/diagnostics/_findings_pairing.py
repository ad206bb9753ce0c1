"""Findings about the pairing: are rows of one item closer than others, and if not, why? Pure functions."""

import math

import numpy as np

from unialign.diagnostics._finding import Finding, joined_words, number, percent
from unialign.diagnostics._findings_alignment import order_findings
from unialign.diagnostics._measure import Measured
from unialign.diagnostics._rules import Pairs, by_culprit, in_blocks, unpaired, useless
from unialign.diagnostics._thresholds import ALIKE, STRUCTURE_P

__all__ = ["pairing_findings"]


def pairing_findings(measured: Measured) -> list[Finding]:
    """Whether row i of every modality is the same item."""
    found = []
    same = {pair: p for pair, p in measured.pairs.items() if p.identical >= ALIKE}
    for (a, b), pair in same.items():
        text = f"{a} and {b} are the same numbers in {percent(pair.identical)} of the items."
        advice = "One file was given twice or saved under two names; no result about this pair means anything."
        found.append(Finding("duplicate_modality", "problem", (a, b), text, advice))
    # What has collapsed cannot be paired or unpaired; that is said where the collapse is.
    told = {
        pair: p
        for pair, p in measured.pairs.items()
        if pair not in same and not any(useless(measured, name) for name in pair)
    }
    judged = {pair: p for pair, p in told.items() if p.directions}
    partly = order_findings(measured, judged)
    found += partly
    bad = {pair: p for pair, p in judged.items() if unpaired(p) and not p.shifts and not in_blocks(measured, pair)}
    for names, pairs in by_culprit(measured, judged, bad):
        found.append(_unpaired_finding(names, pairs))
    undecided = [pair for pair, p in told.items() if not p.directions]
    if undecided:
        pairs_text = joined_words([f"{a} and {b}" for a, b in undecided[:6]])
        text = f"Too few different items to tell right answers from wrong ones between {pairs_text}."
        about = tuple(dict.fromkeys(name for pair in undecided for name in pair))
        found.append(Finding("undecidable", "warning", about, text, "See what is said about equal rows and ids."))
    if judged and not bad and not partly:
        least = min(judged.values(), key=lambda p: p.beaten)
        text = (
            f"Rows are paired: a true pair beats {percent(least.beaten)} of the random ones or more (cosine "
            f"{number(least.true_cosine.mean)} against {number(least.random_cosine)}; by chance 50 %)."
        )
        found.append(Finding("pairing", "ok", (), text))
    return found


def _unpaired_finding(names: tuple[str, ...], pairs: Pairs) -> Finding:
    who = f"{names[0]} and the others" if len(names) == 1 else joined_words(names)
    n = min(p.items for p in pairs.values())
    beaten = float(np.mean([p.beaten for p in pairs.values()]))
    true = float(np.mean([p.true_cosine.mean for p in pairs.values()]))
    other = float(np.mean([p.random_cosine for p in pairs.values()]))
    groups = _fitting(names, pairs)
    text = (
        f"True pairs of {who} are hardly closer than random ones: cosine {number(true)} against {number(other)}, and a "
        f"true pair beats {percent(beaten)} of the {n - 1:,} sampled alternatives (50 % by chance)."
    )
    if groups:
        text += f" These fit each other: {joined_words(groups)}."
    known = [(p.structure, p.structure_p) for p in pairs.values() if math.isfinite(p.structure)]
    agree = [s for s, p in known if p <= STRUCTURE_P]
    if known and len(agree) * 2 > len(known):
        text += (
            f" The rows do belong together, though: the modalities arrange the items alike (CKA {number(min(agree))} "
            f"to {number(max(agree))}, p < 0.01), only not in one coordinate system."
            if len(agree) > 1
            else f" The rows do belong together, though: both arrange the items alike (CKA {number(agree[0])}, "
            f"p < 0.01), only not in one coordinate system."
        )
        advice = (
            "These are features of separate encoders, or one was rotated or trained apart: learn heads that align them "
            "(`unialign train`), or an orthogonal map from some hundred true pairs."
        )
        return Finding("not_aligned", "problem", names, text, advice)
    text += " Nor do they arrange the items alike: nothing shows that row i is the same item in both."
    advice = (
        "Most likely the rows are in another order (a shuffled loader, a sorted file list, one row missing in the "
        "middle): bring all files into one order by an id, and give `ids` in each file so that this is checked."
    )
    return Finding("not_paired", "problem", names, text, advice)


def _fitting(names: tuple[str, ...], bad: Pairs) -> list[str]:
    """Groups of the modalities named within which no pair is bad."""
    if len(names) < 3:
        return []
    friends = {name: tuple(m for m in names if m == name or not {(m, name), (name, m)} & set(bad)) for name in names}
    return [" with ".join(group) for group in dict.fromkeys(friends.values()) if len(group) > 1]
