"""Rules about collapse and the gap, and about the consequences of a far modality."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from unialign._plain_text import join_words
from unialign.diagnostics import _limits as limits
from unialign.diagnostics._details import PairName
from unialign.diagnostics._finding import Case, Finding, Rule, RuleTable, Severity, always
from unialign.diagnostics._format import factor, percent
from unialign.diagnostics._measure import Measurements, directions_of, names_of
from unialign.diagnostics._modality import ModalityStats
from unialign.diagnostics._predicates import (
    Pairs,
    comparable_pairs,
    has_gap,
    has_hubs,
    is_collapsed,
    is_weak,
    recalls,
)

# Minimum number of distinct rows to judge their spread, since two or three rows always lie in a plane.
_MIN_SPREAD_ROWS = 4


def _spread_cases(measured: Measurements) -> Iterator[Case]:
    for name, m in measured.modalities.items():
        if m.spread_cosine is not None and m.distinct_sampled >= _MIN_SPREAD_ROWS:
            recall = min(recalls(measured, name), default=0.0)
            works = recall >= limits.GOOD_RECALL
            effect = f" Ranks still work (R@1 {percent(recall)} or more)." if works else _harm(measured, name)
            yield Case(name, m=m, cosine=m.spread_cosine.mean, works=works, effect=effect, codes=m.unsigned_codes)


def _enough(modalities: Sequence[ModalityStats]) -> bool:
    return all(m.distinct_sampled >= _MIN_SPREAD_ROWS for m in modalities)


def _harm(measured: Measurements, name: str) -> str:
    directions = directions_of({pair: stats for pair, stats in measured.pairs.items() if name in pair})
    if not directions:
        return ""
    worst = [(d.recall[1].mean, key, d.queries) for key, d in directions.items()]
    recall, key, _ = min(entry for entry in worst if entry[1].startswith(f"{name}->"))
    as_query = f"{percent(recall)} with this modality as the query ({key})"
    recall, key, items = min(entry for entry in worst if not entry[1].startswith(f"{name}->"))
    as_gallery = f"{percent(recall)} with this modality as the gallery ({key})"
    return f" R@1 is {as_query} and {as_gallery} among {items:,} sampled candidates."


def _largest_cosine(measured: Measurements) -> Iterator[Case]:
    every = list(measured.modalities.values())
    spread = [(m, m.spread_cosine.mean) for m in every if m.spread_cosine is not None]
    if spread and not any(m.duplicates.distinct == 1 for m in every) and _enough(every):
        ranks, possible = [m.spread_rank for m, _ in spread], max(m.possible_rank for m, _ in spread)
        yield Case(cosine=max(cosine for _, cosine in spread), low=min(ranks), high=max(ranks), possible=possible)


def _low_rank(possible: int) -> float:
    """Return the effective rank below which the rank is low; smaller if few directions are possible."""
    return max(min(limits.LOW_RANK, possible / 2), limits.LOW_RANK_FRACTION * possible)


_CONE = Rule(
    "anisotropy", lambda c: "note" if c.works else "warning", lambda c: c.cosine >= limits.ANISOTROPIC,
    "{name} is anisotropic (all rows lie in a narrow cone): two random rows have a mean cosine of "
    "{m.spread_cosine:interval}.{effect}",
    "Compare cosines with {cosine:number}, the mean for unrelated rows. Subtracting the mean of the training rows "
    "often helps immediately; training with a uniformity term "
    '(ua.losses.UniAlign(preset="balanced")) removes the cause.',
)  # fmt: skip
_COLLAPSE = RuleTable(
    _spread_cases,
    (
        Rule("anisotropy", "warning", lambda c: c.cosine >= limits.ANISOTROPIC and c.codes,
             "{name} contains only non-negative integers, such as unsigned codes of a quantizer. Their offset makes "
             "all rows similar: two random rows have a mean cosine of {m.spread_cosine:interval}.",
             "Dequantize the codes before taking cosines: in each column, subtract the zero point of the quantizer and "
             "multiply by its scale."),
        Rule("collapsed", "warning", lambda c: c.cosine >= limits.COLLAPSED and c.works, _CONE.text, _CONE.advice),
        Rule("collapsed", "problem", lambda c: c.cosine >= limits.COLLAPSED,
             "{name} has collapsed: two random rows have a mean cosine of {m.spread_cosine:interval}.{effect} Pairing, "
             "gap and retrieval of this modality cannot be judged.",
             "Check the training for a loss that stays at ln(batch size), a dead encoder, a temperature at its bound, "
             'or missing repulsion; ua.losses.UniAlign(preset="balanced") has a uniformity term for each modality.'),
        _CONE,
        Rule("low_rank", lambda c: "warning" if c.m.possible_rank >= 8 else "note",
             lambda c: c.m.spread_rank < _low_rank(c.m.possible_rank),
             "{name} has low rank: {m.spread_rank:number} of {m.possible_rank:,} directions hold its variance "
             "(effective rank of the centered rows).",
             "Few directions can distinguish only few items: more varied training pairs, a smaller weight decay or a "
             "uniformity term raise the rank. If a low rank is intended, a smaller dim is sufficient."),
    ),
    otherwise=(
        _largest_cosine,
        Rule("collapse", "ok", always,
             "No modality has collapsed: random rows have a mean cosine of at most {cosine:number}, and effective "
             "ranks are {low:number} to {high:number} of {possible:,}."),
    ),
)  # fmt: skip


def _gap_pairs(measured: Measurements) -> Pairs:
    pairs = comparable_pairs(measured, unless=is_collapsed)
    return {pair: stats for pair, stats in pairs.items() if stats.distinct_items >= limits.MIN_DISTINCT_ITEMS}


def _gap_cases(measured: Measurements) -> Iterator[Case]:
    judged = _gap_pairs(measured)
    names, left = names_of(judged), judged
    for name in names:
        own = {pair: stats for pair, stats in judged.items() if name in pair}
        others = [stats.gap.mean for pair, stats in judged.items() if name not in pair]
        nearest = min(stats.gap.mean for stats in own.values())
        far = bool(others) and nearest >= limits.GAP_NOTE and nearest > limits.FAR_RATIO * max(others)
        far = far and min(stats.gap_z for stats in own.values()) >= limits.GAP_Z
        if far and len(own) == len(names) - 1:
            yield _gap_case(measured, (name,), own, within=max(others))
            left = {pair: stats for pair, stats in left.items() if name not in pair}
    wide = {pair: stats for pair, stats in left.items() if has_gap(stats)}
    if wide:
        yield _gap_case(measured, names_of(wide), wide, within=None)


def _mixing_effect(measured: Measurements, pair: PairName) -> str:
    """Return "" if a gallery of both modalities was not measured."""
    found = measured.details.pairs.get(pair)
    if found is None:
        return ""
    return (
        f" In a gallery of both modalities, the query's own modality is {factor(found.mixing.share.mean)} times as "
        "frequent "
        f"among the first 10 results as in the gallery ({factor(found.centered_mixing.share.mean)} times after "
        "subtracting the means)."
    )


def _gap_case(measured: Measurements, names: tuple[str, ...], pairs: Pairs, *, within: float | None) -> Case:
    (a, b), pair = max(pairs.items(), key=lambda item: item[1].gap.mean)
    gains = [
        (after.mean - before.mean, direction, before.mean, after.mean)
        for stats in pairs.values()
        for direction, after in stats.centered_recall.items()
        if after.mean - (before := stats.directions[direction].recall[1]).mean >= limits.GAP_COST
        and after.exceeds(before)
    ]
    effect = " Removing it would hardly change the ranks within the gallery of one modality."
    if gains:
        _, direction, without, centered = max(gains)
        effect = " It harms retrieval: subtracting each modality's mean raises R@1 of "
        effect += f"{direction} from {percent(without)} to {percent(centered)}."
    effect += _mixing_effect(measured, (a, b))
    wide = pair.gap.mean >= limits.GAP_WARNING or pair.gap_fraction >= limits.GAP_FRACTION
    severity: Severity = "problem" if gains else "warning" if wide else "note"
    more = f", the largest of {len(pairs)} gaps among {join_words(names)}" if len(pairs) > 1 else ""
    return Case(*names, a=a, b=b, other=b if names[0] == a else a, pair=pair, within=within, more=more,
                effect=effect, severity=severity)  # fmt: skip


def _largest_gap(measured: Measurements) -> Iterator[Case]:
    judged = _gap_pairs(measured)
    if judged:
        which = "modalities" if len(judged) == len(measured.pairs) else "the other modalities"
        gap = max(judged.values(), key=lambda stats: stats.gap.mean).gap
        claim = f"There is no gap between {which}"
        if gap.mean >= limits.GAP_NOTE:
            claim = f"With so few distinct items, no gap between {which} can be distinguished from chance"
        yield Case(gap=gap, claim=claim)


_OFFSET = " This offset accounts for {pair.gap_fraction:percent} of the squared distance of true pairs.{effect}"
_GAP_ADVICE = (
    "Subtract each modality's mean (of the training rows) and normalize again. `unialign repair` does this, or matches "
    "the covariances, whichever is better on held-out rows. In training, a larger temperature and repulsion only "
    "within modalities (ua.losses.UniAlign) close the gap."
)
_GAP = RuleTable(
    _gap_cases,
    (
        Rule("modality_gap", lambda c: c.severity, lambda c: c.within is not None,
             "{name} is far from the other modalities: its mean is up to {pair.gap:interval} away (from {other}), "
             "while the other means are within {within:number} of each other." + _OFFSET, _GAP_ADVICE),
        Rule("gap", lambda c: c.severity, always,
             "There is a gap: the means of {a} and {b} are {pair.gap:interval} apart{more}." + _OFFSET, _GAP_ADVICE),
    ),
    otherwise=(
        _largest_gap,
        Rule("gap", "ok", always,
             "{claim}: their means are at most {gap:interval} apart (debiased; 2 is "
             "opposite)."),
    ),
)  # fmt: skip


SPACE_TABLES = (_COLLAPSE, _GAP)


_CONSEQUENCES = {
    "anisotropy": "a narrow cone",
    "uneven_retrieval": "retrieval that works in one direction only",
    "weak_retrieval": "weak retrieval",
    "hubness": "hubness",
}


def fold_consequences(findings: Sequence[Finding], measured: Measurements) -> list[Finding]:
    """Mention the consequences of a far modality in the finding about the gap, and remove the warnings about them."""
    found = list(findings)
    for cause in [finding for finding in found if finding.code == "modality_gap"]:
        (name,) = cause.modalities
        follows = [f for f in found if f.severity == "warning" and _follows_from(f, name, measured)]
        if follows:
            words = join_words(dict.fromkeys(_CONSEQUENCES[f.code] for f in follows))
            extended = replace(cause, text=f"{cause.text} This comes with {words}.")
            found = [extended if f is cause else f for f in found if f not in follows]
    return found


def _follows_from(finding: Finding, name: str, measured: Measurements) -> bool:
    """Return whether a finding is a consequence; hubs or weak directions of other modalities are not."""
    if finding.code == "anisotropy":
        return finding.modalities == (name,)
    if finding.code == "uneven_retrieval":
        return name in finding.modalities
    if finding.code not in _CONSEQUENCES:
        return False
    bad = is_weak if finding.code == "weak_retrieval" else has_hubs
    return all(name in pair for pair, stats in measured.pairs.items() if any(map(bad, stats.directions.values())))
