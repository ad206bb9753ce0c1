"""Findings about retrieval: weak and one-sided directions, hubs. Pure functions of the numbers."""

import numpy as np

from unialign.diagnostics._finding import Finding, counted, number, percent, span
from unialign.diagnostics._measure import Measured
from unialign.diagnostics._pair import Direction, Pair
from unialign.diagnostics._rules import collapsed, mispaired, useless
from unialign.diagnostics._thresholds import (
    ALIKE,
    ANTIHUBS,
    GOOD_RECALL,
    HUB_ITEMS,
    HUB_SHARE,
    HUB_SKEWNESS,
    UNEVEN,
    UNEVEN_RATIO,
    WEAK,
)

__all__ = ["hubby", "retrieval_findings", "weak"]


def retrieval_findings(measured: Measured) -> list[Finding]:
    """What asking one modality for another gives, and whether a few candidates answer everything."""
    return _retrieval(measured) + _hubs(measured)


def _retrieval(measured: Measured) -> list[Finding]:
    judged = {pair: p for pair, p in measured.pairs.items() if p.directions and not mispaired(measured, pair)}
    judged = {pair: p for pair, p in judged.items() if p.identical < ALIKE}
    # What a collapsed modality does to retrieval is said where the collapse is.
    judged = {pair: p for pair, p in judged.items() if not any(useless(measured, name) for name in pair)}
    if not judged:
        return []
    found = []
    directions = {name: d for p in judged.values() for name, d in p.directions.items()}
    feeble = {name: d for name, d in directions.items() if weak(d)}
    if feeble:
        name, worst = min(feeble.items(), key=lambda item: item[1].recall[1].mean)
        text = (
            f"Retrieval is weak in {counted(len(feeble), 'direction')} of {len(directions)}: {name} finds the right "
            f"item first in {span(worst.recall[1], 'percent')} of the queries among {worst.queries:,} sampled "
            f"candidates (chance {percent(worst.chance['recall@1'])}; within the first 10: "
            f"{percent(worst.recall[10].mean)})."
        )
        advice = (
            "Check pairing and collapse first; then more or harder pairs, a larger batch, a smaller temperature "
            "(`unialign compare` tries objectives on your features)."
        )
        about = tuple(dict.fromkeys(part for n in feeble for part in n.split("->")))
        found.append(Finding("weak_retrieval", "warning", about, text, advice))
    for (a, b), pair in judged.items():
        found += _uneven(a, b, pair)
    if not found:
        low = min(directions.items(), key=lambda item: item[1].recall[1].mean)
        high = max(directions.items(), key=lambda item: item[1].recall[1].mean)
        where = "every direction" if len(judged) == len(measured.pairs) else f"the other {len(directions)} directions"
        best = f" to {span(high[1].recall[1], 'percent')} ({high[0]})" if high[0] != low[0] else ""
        text = (
            f"Retrieval works in {where}: R@1 {'from ' if best else ''}{span(low[1].recall[1], 'percent')} ({low[0]})"
            f"{best} among {low[1].queries:,} sampled candidates, chance {percent(low[1].chance['recall@1'])}."
        )
        found.append(Finding("retrieval", "ok", (), text))
    return found


def weak(direction: Direction) -> bool:
    """Whether it finds too little for a user."""
    recall, chance = direction.recall[1].mean, direction.chance["recall@1"]
    return recall < GOOD_RECALL and recall < WEAK * chance


def _uneven(a: str, b: str, pair: Pair) -> list[Finding]:
    one, two = pair.directions[f"{a}->{b}"].recall[1], pair.directions[f"{b}->{a}"].recall[1]
    (low, worse), (high, better) = sorted([(one, f"{a}->{b}"), (two, f"{b}->{a}")], key=lambda item: item[0].mean)
    difference_R = (high.values_R - low.values_R).numpy()
    reliable = float(np.nanquantile(difference_R, 0.025)) > 0
    if high.mean - low.mean < UNEVEN or high.mean < UNEVEN_RATIO * low.mean or not reliable:
        return []
    text = (
        f"Retrieval suffers in one direction: {worse} has R@1 {span(low, 'percent')}, {better} has "
        f"{span(high, 'percent')} among {pair.items:,} sampled candidates."
    )
    gallery = worse.split("->")[1]
    advice = (
        f"The candidates of {worse} are rows of {gallery}: look whether a few of them answer everything (hubs), or "
        f"whether several {gallery} rows mean nearly the same; dividing each candidate's scores by its mean score over "
        "many queries (inverted softmax) often evens this out."
    )
    return [Finding("uneven_retrieval", "warning", (a, b), text, advice)]


def _hubs(measured: Measured) -> list[Finding]:
    judged = {
        name: d
        for (a, b), p in measured.pairs.items()
        if p.items >= HUB_ITEMS
        and not mispaired(measured, (a, b))
        and not collapsed(measured, a)
        and not collapsed(measured, b)
        for name, d in p.directions.items()
    }
    if not judged:
        return []
    bad = {name: d for name, d in judged.items() if hubby(d)}
    if not bad:
        worst = max(judged.values(), key=lambda d: d.hubs.skewness)
        text = (
            f"No hubs: the most popular candidate is among the first {worst.hubs.k} of "
            f"{percent(worst.hubs.largest / worst.queries)} of the queries (skewness {number(worst.hubs.skewness)})."
        )
        return [Finding("hubness", "ok", (), text)]
    name, worst = max(bad.items(), key=lambda item: item[1].hubs.skewness)
    text = (
        f"A few candidates answer everything in {counted(len(bad), 'direction')} of {len(judged)}: in {name} row "
        f"{worst.hub_row:,} is among the first {worst.hubs.k} of {percent(worst.hubs.largest / worst.queries)} of the "
        f"queries, and {percent(worst.hubs.antihub_share)} of the candidates are found by nobody (skewness "
        f"{number(worst.hubs.skewness)}; {number(worst.hubs.chance_skewness)} by chance)."
    )
    advice = (
        "Subtract each modality's mean and normalise again; correct scores for popularity (inverted softmax or CSLS); "
        "in training, a uniformity term for the gallery's modality. Look at the row named: it is often an empty or "
        "broken input."
    )
    about = tuple(dict.fromkeys(n.split("->")[1] for n in bad))
    return [Finding("hubness", "warning", about, text, advice)]


def hubby(direction: Direction) -> bool:
    """Whether a few candidates answer everything."""
    hubs = direction.hubs
    dead = hubs.antihub_share >= ANTIHUBS and hubs.antihub_share > 2 * hubs.chance_antihub_share
    return hubs.skewness >= HUB_SKEWNESS or dead or hubs.largest >= HUB_SHARE * direction.queries
