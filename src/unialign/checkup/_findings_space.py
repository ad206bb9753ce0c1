"""Findings about the space: pairing, collapse, gap, retrieval, hubs. Pure functions of the numbers."""

import math
from collections import Counter
from collections.abc import Iterable

import numpy as np

from unialign.checkup._finding import Finding, Severity, counted, joined_words, number, percent, span
from unialign.checkup._measure import Measured
from unialign.checkup._pair import Direction, Pair
from unialign.checkup._thresholds import (
    ALIKE,
    ANTIHUBS,
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
    HUB_ITEMS,
    HUB_SHARE,
    HUB_SKEWNESS,
    STRUCTURE_P,
    UNEVEN,
    UNEVEN_RATIO,
    UNPAIRED,
    WEAK,
)

__all__ = ["space_findings"]

Pairs = dict[tuple[str, str], Pair]


def space_findings(measured: Measured) -> list[Finding]:
    """All findings that need the sample's geometry."""
    found = _pairing(measured)
    found += _collapse(measured)
    found += _gap(measured)
    found += _retrieval(measured)
    found += _hubs(measured)
    if measured.label_map is not None:
        value, chance = measured.label_map
        text = f"Items of the same label across modalities: mAP {percent(value)}, {percent(chance)} by chance."
        found.append(Finding("labels", "note", (), text))
    return found


def _unpaired(pair: Pair) -> bool:
    return bool(pair.directions) and pair.beaten < UNPAIRED


def _collapsed(measured: Measured, name: str) -> bool:
    single = measured.singles[name]
    return single.copies.distinct == 1 or (single.cosine is not None and single.cosine.mean >= COLLAPSED)


# --- pairing -----------------------------------------------------------------------------------------------------


def _pairing(measured: Measured) -> list[Finding]:
    found = []
    same = {pair: p for pair, p in measured.pairs.items() if p.identical >= ALIKE}
    for (a, b), pair in same.items():
        text = f"{a} and {b} are the same numbers in {percent(pair.identical)} of the items."
        advice = "One file was given twice or saved under two names; no result about this pair means anything."
        found.append(Finding("same_rows", "problem", (a, b), text, advice))
    judged = {pair: p for pair, p in measured.pairs.items() if p.directions and pair not in same}
    bad = {pair: p for pair, p in judged.items() if _unpaired(p)}
    for names, pairs in _by_culprit(measured, judged, bad):
        found.append(_unpaired_finding(names, pairs))
    undecided = [pair for pair, p in measured.pairs.items() if not p.directions and pair not in same]
    if undecided:
        pairs_text = joined_words([f"{a} and {b}" for a, b in undecided[:6]])
        text = f"Too few different items to tell right answers from wrong ones between {pairs_text}."
        about = tuple(dict.fromkeys(name for pair in undecided for name in pair))
        found.append(Finding("undecidable", "warning", about, text, "See what is said about equal rows and ids."))
    if judged and not bad:
        least = min(judged.values(), key=lambda p: p.beaten)
        text = (
            f"Rows are paired: a true pair beats {percent(least.beaten)} of the random ones or more (cosine "
            f"{number(least.true_cosine.mean)} against {number(least.random_cosine)}; by chance 50 %)."
        )
        found.append(Finding("pairing", "ok", (), text))
    return found


def _by_culprit(measured: Measured, judged: Pairs, bad: Pairs) -> Iterable[tuple[tuple[str, ...], Pairs]]:
    """Pairs that do not fit. Where all others fit each other, the modalities that fit nobody are named one by one."""
    group = {name: name for name in measured.singles}
    for a, b in judged:
        if (a, b) not in bad:
            group = {name: group[a] if of == group[b] else of for name, of in group.items()}
    sizes = Counter(group.values())
    alone = [name for name, of in group.items() if sizes[of] == 1]
    left = dict(bad)
    if len(sizes) == len(alone) + 1:
        for name in alone:
            own = {pair: p for pair, p in left.items() if name in pair and not set(pair) <= set(alone)}
            if own:
                yield (name,), own
                left = {pair: p for pair, p in left.items() if pair not in own}
        left = {pair: p for pair, p in left.items() if not set(pair) <= set(alone)}
    if left:
        yield tuple(dict.fromkeys(name for pair in left for name in pair)), left


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


# --- collapse ----------------------------------------------------------------------------------------------------


def _collapse(measured: Measured) -> list[Finding]:
    found = []
    for name, single in measured.singles.items():
        if single.cosine is None or single.copies.distinct == 1:
            continue
        cosine, recalls = single.cosine, _recalls(measured, name)
        works = bool(recalls) and min(recalls) >= GOOD_RECALL
        if cosine.mean >= CONE:
            deep = cosine.mean >= COLLAPSED
            what = "has collapsed" if deep and not works else "lies in a narrow cone"
            text = (
                f"{name} {what}: two random rows have a mean cosine of {span(cosine)}; its effective rank is "
                f"{number(single.rank)} of {single.possible_rank:,}."
            )
            text += f" Ranks still work (R@1 {percent(min(recalls))} or more)." if works else _suffering(measured, name)
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
            found.append(Finding("collapsed" if deep else "narrow_cone", severity, (name,), text, advice))
        elif single.rank < FLAT_RANK or single.rank < FLAT_SHARE * single.possible_rank:
            text = (
                f"{name} is nearly flat: {number(single.rank)} directions (effective rank) of {single.possible_rank:,} "
                "hold its variance."
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


def _useless(measured: Measured, name: str) -> bool:
    recalls = _recalls(measured, name)
    return _collapsed(measured, name) and not (recalls and min(recalls) >= GOOD_RECALL)


def _recalls(measured: Measured, name: str) -> list[float]:
    return [
        direction.recall[1].mean
        for pair, p in measured.pairs.items()
        if name in pair
        for direction in p.directions.values()
    ]


# --- gap ---------------------------------------------------------------------------------------------------------


def _gap(measured: Measured) -> list[Finding]:
    judged = {
        (a, b): p
        for (a, b), p in measured.pairs.items()
        if p.identical < ALIKE and not _collapsed(measured, a) and not _collapsed(measured, b)
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
        text = (
            f"No gap between modalities: their means are at most {span(largest.gap)} apart (debiased; 2 is opposite)."
        )
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
    return Finding("shifted" if rest is not None else "gap", severity, names, text, advice)


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


# --- retrieval ---------------------------------------------------------------------------------------------------


def _retrieval(measured: Measured) -> list[Finding]:
    judged = {pair: p for pair, p in measured.pairs.items() if p.directions and not _unpaired(p)}
    judged = {pair: p for pair, p in judged.items() if p.identical < ALIKE}
    # What a collapsed modality does to retrieval is said where the collapse is.
    judged = {pair: p for pair, p in judged.items() if not any(_useless(measured, name) for name in pair)}
    if not judged:
        return []
    found = []
    directions = {name: d for p in judged.values() for name, d in p.directions.items()}
    weak = {name: d for name, d in directions.items() if _weak(d)}
    if weak:
        name, worst = min(weak.items(), key=lambda item: item[1].recall[1].mean)
        text = (
            f"Retrieval is weak in {counted(len(weak), 'direction')} of {len(directions)}: {name} finds the right item "
            f"first in {span(worst.recall[1], 'percent')} of the queries among {worst.queries:,} sampled candidates "
            f"(chance {percent(worst.chance['recall@1'])}; within the first 10: {percent(worst.recall[10].mean)})."
        )
        advice = (
            "Check pairing and collapse first; then more or harder pairs, a larger batch, a smaller temperature "
            "(`unialign compare` tries objectives on your features)."
        )
        about = tuple(dict.fromkeys(part for n in weak for part in n.split("->")))
        found.append(Finding("weak_retrieval", "warning", about, text, advice))
    for (a, b), pair in judged.items():
        found += _uneven(a, b, pair)
    if not weak:
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


def _weak(direction: Direction) -> bool:
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


# --- hubs --------------------------------------------------------------------------------------------------------


def _hubs(measured: Measured) -> list[Finding]:
    judged = {
        name: d
        for (a, b), p in measured.pairs.items()
        if p.items >= HUB_ITEMS and not _collapsed(measured, a) and not _collapsed(measured, b)
        for name, d in p.directions.items()
    }
    if not judged:
        return []
    bad = {name: d for name, d in judged.items() if _hubby(d)}
    if not bad:
        worst = max(judged.values(), key=lambda d: d.hubs.skewness)
        text = (
            f"No hubs: the most popular candidate is among the first {worst.hubs.k} of "
            f"{percent(worst.hubs.largest / worst.queries)} of the queries (skewness {number(worst.hubs.skewness)})."
        )
        return [Finding("hubs", "ok", (), text)]
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
    return [Finding("hubs", "warning", about, text, advice)]


def _hubby(direction: Direction) -> bool:
    hubs = direction.hubs
    dead = hubs.antihub_share >= ANTIHUBS and hubs.antihub_share > 2 * hubs.chance_antihub_share
    return hubs.skewness >= HUB_SKEWNESS or dead or hubs.largest >= HUB_SHARE * direction.queries
