"""Rules about the use of a space in an index of several modalities: mixed galleries, cut-offs and truncation."""

from collections.abc import Iterator

from unialign._plain_text import join_words
from unialign.diagnostics import _limits as limits
from unialign.diagnostics._details import PairDetails, PairName
from unialign.diagnostics._estimate import Estimate, ratio
from unialign.diagnostics._finding import Case, Rule, RuleTable, always
from unialign.diagnostics._format import percent
from unialign.diagnostics._measure import Measurements, names_of
from unialign.diagnostics._mixing import Mixing
from unialign.diagnostics._predicates import has_gap, is_collapsed, is_useless, is_weak, recalls, retrieval_pairs
from unialign.diagnostics._rules_retrieval import is_uneven
from unialign.diagnostics._truncation import Truncation

Details = dict[PairName, PairDetails]


def _judged(measured: Measurements) -> Details:
    found = measured.details.pairs
    return {pair: found[pair] for pair in retrieval_pairs(measured) if pair in found}


def _is_biased(mixing: Mixing) -> bool:
    return mixing.share.mean >= limits.BIAS_NOTE and mixing.share.low >= limits.BIAS_LEAST


def _has_distribution_gap(found: PairDetails) -> bool:
    return found.shape.distribution_p <= limits.MAX_DISTRIBUTION_P and _is_biased(found.centered_mixing)


def _reports_gap(measured: Measurements, pair: PairName) -> bool:
    return has_gap(measured.pairs[pair]) and not any(is_collapsed(measured, name) for name in pair)


def _strong(mixing: Mixing) -> bool:
    return mixing.share.mean >= limits.BIAS_WARNING


def _mixable(measured: Measurements) -> Details:
    """Return the pairs without those whose bias is explained by weak retrieval."""
    judged = _judged(measured)
    return {
        pair: found
        for pair, found in judged.items()
        if not any(is_weak(direction) for direction in measured.pairs[pair].directions.values())
    }


def _share(item: tuple[PairName, PairDetails]) -> float:
    return item[1].mixing.share.mean


def _bias_cases(measured: Measurements) -> Iterator[Case]:
    """Yield pairs with a bias that neither a gap nor a difference of distributions explains."""
    bad = {
        pair: found
        for pair, found in _mixable(measured).items()
        if _is_biased(found.mixing) and not _reports_gap(measured, pair) and not _has_distribution_gap(found)
    }
    if bad:
        (a, b), worst = max(bad.items(), key=_share)
        yield Case(*names_of(bad), a=a, b=b, found=worst, centered=worst.centered_mixing)


def _largest_bias(measured: Measurements) -> Iterator[Case]:
    judged = _mixable(measured)
    if judged and not any(_is_biased(found.mixing) for found in judged.values()):
        (a, b), worst = max(judged.items(), key=_share)
        yield Case(a=a, b=b, share=worst.mixing.share)


_BIAS = RuleTable(
    _bias_cases,
    (
        Rule("modality_bias", lambda c: "warning" if _strong(c.found.mixing) else "note", always,
             "In a gallery of {a} and {b}, queries find their own modality first: it is "
             "{found.mixing.share:factor_interval} times as frequent among the first 10 results as in the gallery, and "
             "{centered.share.mean:factor} times after subtracting each modality's mean. NDCG@10 is "
             "{found.mixing.cross.mean:percent} for a positive of the other modality, and "
             "{found.mixing.own.mean:percent} for one of the same modality.",
             "`unialign repair` compares corrections on held-out rows. Without a correction, search each modality "
             "separately, or reserve places among the results for each modality."),
    ),
    otherwise=(
        _largest_bias,
        Rule("modality_bias", "ok", always,
             "In a gallery of two modalities, queries do not prefer their own modality: it is at most "
             "{share:factor_interval} times as frequent among the first 10 results as in the gallery ({a} and {b})."),
    ),
)  # fmt: skip


def _distribution_cases(measured: Measurements) -> Iterator[Case]:
    bad = {pair: found for pair, found in _mixable(measured).items() if _has_distribution_gap(found)}
    if bad:
        (a, b), worst = max(bad.items(), key=lambda item: item[1].centered_mixing.share.mean)
        yield Case(*names_of(bad), a=a, b=b, found=worst, shape=worst.shape, centered=worst.centered_mixing)


_DISTRIBUTION = RuleTable(
    _distribution_cases,
    (
        Rule("distribution_gap", lambda c: "warning" if _strong(c.centered) else "note", always,
             "The distributions of {a} and {b} differ even without their means (distribution gap, MMD "
             "{shape.distribution_gap:interval}; covariance mismatch {shape.covariance_mismatch:percent_interval}). In "
             "a gallery of both, the modality of the query is {centered.share:factor_interval} times as frequent among "
             "the first 10 results as in the gallery after subtracting the means ({found.mixing.share.mean:factor} "
             "before).",
             "Subtracting means is not sufficient. `unialign repair` also matches the covariances if this improves "
             "held-out rows; in training, repulsion within modalities (ua.losses.UniAlign) matches the distributions."),
    ),
)  # fmt: skip


def _shared_cases(measured: Measurements) -> Iterator[Case]:
    shared = measured.details.shared
    if shared is None or any(is_useless(measured, name) for name in measured.modalities):
        return
    if shared.mean >= limits.SHARED and len(measured.modalities) > 1:
        recall = min((value for name in measured.modalities for value in recalls(measured, name)), default=0.0)
        works = recall >= limits.GOOD_RECALL
        effect = f" Ranks still work (R@1 {percent(recall)} or more)." if works else ""
        yield Case(shared=shared, works=works, effect=effect)


_SHARED = RuleTable(
    _shared_cases,
    (
        Rule("shared_component", lambda c: "note" if c.works else "warning", always,
             "{shared:percent_interval} of the squared length of the rows is one component that all modalities have in "
             "common.{effect}",
             "Subtract the mean of all rows and normalize again, which leaves more of the range of cosines for the "
             "differences between items. `unialign repair` subtracts the mean of each modality, which removes this "
             "component too."),
    ),
)  # fmt: skip


def _sharpness_cases(measured: Measurements) -> Iterator[Case]:
    judged = {pair: found for pair, found in _judged(measured).items() if not has_gap(measured.pairs[pair])}
    names = [name for name in names_of(judged) if not is_collapsed(measured, name)]
    within = {f"within {name}": ((name,), measured.details.deviation[name]) for name in names
              if name in measured.details.deviation}  # fmt: skip
    between = {f"between {a} and {b}": ((a, b), judged[a, b].shape.deviation) for a, b in judged
               if a in names and b in names}  # fmt: skip
    for group in (within, between):
        values = {where: value for where, (_, value) in group.items() if value.mean > 0}
        if len(values) < 2:
            continue
        sharp, flat = (
            max(values, key=lambda where: values[where].mean),
            min(values, key=lambda where: values[where].mean),
        )
        quotient = ratio(values[sharp], values[flat])
        if quotient.mean >= limits.SHARPNESS_RATIO and quotient.low >= limits.SHARPNESS_LEAST:
            modalities = dict.fromkeys((*group[sharp][0], *group[flat][0]))
            yield Case(*modalities, sharp=sharp, flat=flat, high=values[sharp], low=values[flat], quotient=quotient)
            return


_SHARPNESS = RuleTable(
    _sharpness_cases,
    (
        Rule("uneven_sharpness", "note", always,
             "Cosines have different scales: for random pairs, their standard deviation is {high.mean:number} {sharp} "
             "and {low.mean:number} {flat}, a ratio of {quotient:factor_interval}.",
             "One temperature or cut-off does not fit all modalities. Use a cut-off for each pair, as listed in the "
             "report, and in training a mapping of modalities to temperatures as `temperature`. `unialign repair` "
             "matches the covariances if this improves held-out rows."),
    ),
)  # fmt: skip


def _cutoff_cases(measured: Measurements) -> Iterator[Case]:
    """Compare the cut-off of the rate 0.1 % of one pair with the cut-off of the rate 1 % of another."""
    common, rare = {}, {}
    for pair, found in _judged(measured).items():
        by_rate = {cutoff.rate: cutoff.cosine for cutoff in found.cutoffs}
        if {0.01, 0.001} <= set(by_rate):
            common[pair], rare[pair] = by_rate[0.01], by_rate[0.001]
    if len(rare) < 2:
        return
    low, high = min(rare, key=lambda pair: rare[pair].mean), max(common, key=lambda pair: common[pair].mean)
    if low != high and rare[low].high < common[high].low:
        yield Case(*names_of([low, high]), low=join_words(low), high=join_words(high), at=rare[low], other=common[high])


_CUTOFFS = RuleTable(
    _cutoff_cases,
    (
        Rule("uneven_cutoffs", "note", always,
             "Pairs of modalities need different cut-offs: the cosine {at:interval} is exceeded by 0.1 % of the random "
             "pairs of {low}, but by over 1 % of those of {high}, where 1 % is reached at {other:interval}.",
             "Use a cut-off for each pair of modalities: the report lists the cosines for false-positive rates of "
             "1 %, 0.1 % and 0.01 %."),
    ),
)  # fmt: skip


def _asymmetry_cases(measured: Measurements) -> Iterator[Case]:
    uneven: dict[PairName, Estimate] = {}
    for pair, found in _judged(measured).items():
        recalls_ab = [d.recall[1] for d in measured.pairs[pair].directions.values()]
        least, most = sorted(recalls_ab, key=lambda recall: recall.mean)
        deviation = float(found.asymmetry.values_R.nan_to_num().std())
        large = abs(found.asymmetry.mean) >= limits.UNEVEN_DIFFERENCE
        if large and abs(found.asymmetry.mean) >= limits.ASYMMETRY_Z * deviation and not is_uneven(least, most):
            uneven[pair] = found.asymmetry
    if uneven:
        pair = max(uneven, key=lambda pair: abs(uneven[pair].mean))
        (worse, low), (better, high) = sorted(
            measured.pairs[pair].directions.items(), key=lambda i: i[1].recall[1].mean
        )
        gap = uneven[pair]
        low_end, high_end = sorted((abs(gap.low), abs(gap.high)))
        size = Estimate(abs(gap.mean), low_end, high_end, gap.values_R)
        yield Case(*pair, worse=worse, better=better, low=low.recall[1], high=high.recall[1], size=size)


_ASYMMETRY = RuleTable(
    _asymmetry_cases,
    (
        Rule("asymmetry", "note", always,
             "The two directions differ: R@1 of {better} is {high.mean:percent}, of {worse} {low.mean:percent}, a "
             "difference of {size:percent_interval}.",
             "Report both directions. CSLS (`unialign repair`) or inverted softmax often balances them."),
    ),
)  # fmt: skip


def _truncation_cases(measured: Measurements) -> Iterator[Case]:
    """Yield the smallest number of principal directions that costs nothing, if the first coordinates cost much."""
    found = measured.details.truncation
    if found is None or len(_judged(measured)) < len(measured.details.pairs):
        return
    by_dim: dict[int, dict[str, Truncation]] = {}
    for reduced in found.reduced:
        by_dim.setdefault(reduced.dim, {})[reduced.kind] = reduced
    for _, kinds in sorted(by_dim.items()):
        if set(kinds) == {"first", "principal"}:
            first, principal = kinds["first"], kinds["principal"]
            free = principal.recall_loss.high <= limits.FREE_LOSS
            if free and first.recall_loss.low - principal.recall_loss.high >= limits.ROTATION_GAIN:
                yield Case(first=first, principal=principal, whole=found.recall)
                return


_TRUNCATION = RuleTable(
    _truncation_cases,
    (
        Rule("truncation", "note", always,
             "The first coordinates are not the most important ones: mean R@1 is {whole.mean:percent} with all dims "
             "(95 % interval {whole.low:percent} to {whole.high:percent}), {first.recall.mean:percent} with the first "
             "{first.dim}, and {principal.recall.mean:percent} with {first.dim} principal components.",
             "To save memory, project all modalities onto the principal components of their rows before truncation "
             "and normalize again. A model trained with nested dims (Matryoshka) can be truncated as it is."),
    ),
)  # fmt: skip

INDEX_TABLES = (_BIAS, _DISTRIBUTION, _SHARED, _SHARPNESS, _CUTOFFS, _ASYMMETRY, _TRUNCATION)
