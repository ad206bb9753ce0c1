"""Rules about retrieval: its strength, the cosine of a likely match, hubs and labels."""

import math
from collections.abc import Iterator

from unialign._plain_text import count
from unialign.diagnostics import _limits as limits
from unialign.diagnostics._estimate import Estimate
from unialign.diagnostics._finding import Case, Rule, RuleTable, always
from unialign.diagnostics._format import at_most, number, percent, percent_interval
from unialign.diagnostics._match import MatchStats
from unialign.diagnostics._measure import Measurements, directions_of, names_of
from unialign.diagnostics._pair import DirectionStats
from unialign.diagnostics._predicates import has_hubs, hub_directions, is_weak, retrieval_pairs


def _retrieval_cases(measured: Measurements) -> Iterator[Case]:
    judged = retrieval_pairs(measured)
    directions = directions_of(judged)
    weak = {name: direction for name, direction in directions.items() if is_weak(direction)}
    if weak:
        name, worst = min(weak.items(), key=_recall)
        which = f"{count(len(weak), 'direction')} of {len(directions)}"
        affected = dict.fromkeys(modality for key in weak for modality in key.split("->"))
        yield Case(*affected, kind="weak", name=name, worst=worst, which=which)
    for names, stats in judged.items():
        (worse, low), (better, high) = sorted(stats.directions.items(), key=_recall)
        yield Case(*names, kind="pair", low=low.recall[1], high=high.recall[1], worse=worse, better=better,
                   items=stats.items, gallery=worse.split("->")[1])  # fmt: skip


def is_uneven(low: Estimate, high: Estimate) -> bool:
    """Return whether R@1 is much higher in one direction, both as a difference and as a ratio."""
    large = high.mean - low.mean >= limits.UNEVEN_DIFFERENCE and high.mean >= limits.UNEVEN_RATIO * low.mean
    return large and high.exceeds(low)


def _recall(item: tuple[str, DirectionStats]) -> float:
    return item[1].recall[1].mean


def _recall_range(measured: Measurements) -> Iterator[Case]:
    judged = retrieval_pairs(measured)
    directions = directions_of(judged)
    if directions:
        (least, low), (most, high) = min(directions.items(), key=_recall), max(directions.items(), key=_recall)
        where = "every direction" if len(judged) == len(measured.pairs) else f"the other {len(directions)} directions"
        among = [f"among {d.queries:,} sampled candidates, chance {percent(d.chance['recall@1'])}" for d in (low, high)]
        one = low.queries == high.queries
        ends = [
            f"{percent_interval(d.recall[1])} ({name}{'' if one else f', {words}'})"
            for d, name, words in zip((low, high), (least, most), among, strict=True)
        ]
        recalls = percent_interval(low.recall[1]) if one and least == most else " to ".join(ends)
        yield Case(where=where, recalls=recalls, among=f" {among[0]}" if one else "")


_RETRIEVAL = RuleTable(
    _retrieval_cases,
    (
        Rule("weak_retrieval", "warning", lambda c: c.kind == "weak",
             "Retrieval is weak in {which}: {name} ranks the positive first for "
             "{worst.recall[1]:percent_interval} of the queries among {worst.queries:,} sampled candidates (chance "
             "{worst.chance[recall@1]:percent}; within the first 10: {worst.recall[10].mean:percent}).",
             "Check pairing and collapse first; then use more or harder pairs, a larger batch or a smaller temperature "
             "(`unialign compare` tries objectives on your features)."),
        Rule("uneven_retrieval", "warning", lambda c: c.kind == "pair" and is_uneven(c.low, c.high),
             "Retrieval is much worse in one direction: R@1 of {worse} is {low:percent_interval}, of {better} "
             "{high:percent_interval}, among {items:,} sampled candidates.",
             "The candidates of {worse} are rows of {gallery}: check whether a few of them are returned for most "
             "queries (hubs), or whether several {gallery} rows have nearly the same meaning. Dividing the scores of "
             "each candidate by their mean over many queries (inverted softmax) often balances both directions."),
    ),
    otherwise=(
        _recall_range,
        Rule("retrieval", "ok", always,
             "Retrieval works in {where}: R@1 is {recalls}{among}."),
    ),
)  # fmt: skip


def _hub_case(directions: dict[str, DirectionStats], *modalities: str, which: str = "") -> Case:
    name, worst = max(directions.items(), key=lambda item: item[1].hubs.skewness)
    fraction = worst.hubs.largest / worst.hubs.queries
    return Case(*modalities, name=name, row=worst.hub_row, hubs=worst.hubs, fraction=fraction, which=which)


def _hub_cases(measured: Measurements) -> Iterator[Case]:
    judged = hub_directions(measured)
    bad = {name: direction for name, direction in judged.items() if has_hubs(direction)}
    if bad:
        galleries = dict.fromkeys(name.split("->")[1] for name in bad)
        yield _hub_case(bad, *galleries, which=f"{count(len(bad), 'direction')} of {len(judged)}")


def _largest_hub(measured: Measurements) -> Iterator[Case]:
    judged = hub_directions(measured)
    if judged:
        yield _hub_case(judged)


_HUBS = RuleTable(
    _hub_cases,
    (
        Rule("hubness", "warning", always,
             "A few candidates are returned for most queries (hubs) in {which}: in {name} row {row:,} is among the "
             "first {hubs.k} results of {fraction:percent} of the queries, and {hubs.antihub_fraction:percent} of the "
             "candidates are never found (skewness {hubs.skewness:number}; {hubs.chance_skewness:number} by chance).",
             "Subtract each modality's mean and normalize again; correct scores for popularity (inverted softmax or "
             "CSLS); in training, add a uniformity term for the gallery's modality. Inspect the named row, which is "
             "often an empty or broken input."),
    ),
    otherwise=(
        _largest_hub,
        Rule("hubness", "ok", always,
             "There are no hubs: the most popular candidate is among the first {hubs.k} results of {fraction:percent} "
             "of the queries (skewness {hubs.skewness:number})."),
    ),
)  # fmt: skip


# Report the threshold of 95 % likely matches only if at least this fraction of the matches reaches it.
_MIN_SURE = 0.5


def _match_cases(measured: Measurements) -> Iterator[Case]:
    found = {
        pair: stats.match
        for pair, stats in retrieval_pairs(measured).items()
        if stats.match is not None and math.isfinite(stats.match.cosine)
    }
    if found:
        yield Case(*names_of(found), listed=at_most((_match_text(a, b, m) for (a, b), m in found.items()), 6))


def _match_text(a: str, b: str, match: MatchStats) -> str:
    text = (
        f"{number(match.cosine)} for {a} and {b} (reached by {percent(match.true_fraction)} of the matches and "
        f"{percent(match.random_fraction)} of the other pairs"
    )
    # A threshold that few matches reach is estimated from few cosines.
    useful = match.sure_true_fraction >= _MIN_SURE and match.sure_cosine > match.cosine
    sure = f"; a match is 95 % likely above {number(match.sure_cosine)}" if useful else ""
    return f"{text}{sure})"


_MATCH = RuleTable(
    _match_cases,
    (
        Rule("match_cosine", "ok", always,
             "Above the following cosines, two rows are more likely to match than not, assuming that matches and other "
             "pairs are equally frequent: {listed:words}."),
    ),
)  # fmt: skip

_LABELS = RuleTable(
    lambda measured: [Case(value=measured.label_map[0], chance=measured.label_map[1])] if measured.label_map else [],
    (
        Rule("labels", "note", always,
             "Retrieval of items with the same label across modalities has an mAP of {value:percent} ({chance:percent} "
             "by chance)."),
    ),
)  # fmt: skip

RETRIEVAL_TABLES = (_RETRIEVAL, _MATCH, _HUBS, _LABELS)
