"""Predicates shared by several rule tables, so that only one finding reports each cause."""

from collections import Counter
from collections.abc import Callable, Iterable

from unialign.diagnostics import _limits as limits
from unialign.diagnostics._details import PairName
from unialign.diagnostics._measure import Measurements, directions_of, names_of
from unialign.diagnostics._pair import DirectionStats, PairStats

Pairs = dict[PairName, PairStats]


def is_unpaired(pair: PairStats) -> bool:
    """Return whether true pairs are hardly more similar than random pairs."""
    return bool(pair.directions) and pair.auc < limits.MIN_AUC


def is_unclear(pair: PairStats) -> bool:
    """Return whether too few items were measured to decide if true pairs are more similar than random pairs."""
    if not pair.directions:
        return False
    aucs = [direction.auc for direction in pair.directions.values()]
    if is_unpaired(pair):
        return max(auc.high for auc in aucs) > limits.CLEAR_AUC
    return min(auc.low for auc in aucs) < (limits.MIN_AUC if pair.items < limits.FEW_ITEMS else 0.5)


def has_gap(pair: PairStats) -> bool:
    return pair.gap.mean >= limits.GAP_NOTE and pair.gap.low > 0 and pair.gap_z >= limits.GAP_Z


def touches_block(measured: Measurements, pair: PairName) -> bool:
    return any(alignment.blocks and set(names) & set(pair) for names, alignment in measured.row_alignment.items())


def is_mispaired(measured: Measurements, pair: PairName) -> bool:
    """Return whether too many rows are mispaired to judge retrieval."""
    stats = measured.pairs[pair]
    scattered = any(
        alignment.random_fraction >= limits.MANY_RANDOM and set(names) & set(pair)
        for names, alignment in measured.row_alignment.items()
    )
    return is_unpaired(stats) or bool(stats.offsets) or scattered or touches_block(measured, pair)


def is_collapsed(measured: Measurements, name: str) -> bool:
    m = measured.modalities[name]
    return m.duplicates.distinct == 1 or (m.spread_cosine is not None and m.spread_cosine.mean >= limits.COLLAPSED)


def is_useless(measured: Measurements, name: str) -> bool:
    """Return whether the modality has collapsed and its retrieval is poor."""
    return is_collapsed(measured, name) and min(recalls(measured, name), default=0.0) < limits.GOOD_RECALL


def comparable_pairs(measured: Measurements, *, unless: Callable[[Measurements, str], bool]) -> Pairs:
    return {
        pair: stats
        for pair, stats in measured.pairs.items()
        if not stats.is_copy and not any(unless(measured, name) for name in pair)
    }


def retrieval_pairs(measured: Measurements) -> Pairs:
    pairs = comparable_pairs(measured, unless=is_useless)
    return {
        pair: stats
        for pair, stats in pairs.items()
        if stats.directions and not is_mispaired(measured, pair) and not is_unclear(stats)
    }


def hub_directions(measured: Measurements) -> dict[str, DirectionStats]:
    """Return directions with enough distinct queries to judge hubs, since a few queries cannot find most candidates."""
    pairs = {
        pair: stats
        for pair, stats in measured.pairs.items()
        if not stats.is_copy
        and not is_mispaired(measured, pair)
        and not any(is_collapsed(measured, name) for name in pair)
    }
    return {name: d for name, d in directions_of(pairs).items() if d.distinct >= limits.HUB_ITEMS}


def is_weak(direction: DirectionStats) -> bool:
    recall, chance = direction.recall[1].mean, direction.chance["recall@1"]
    if direction.queries < limits.FEW_ITEMS:  # with few items, use the upper bound
        recall = direction.recall[1].high
    return recall < limits.GOOD_RECALL and recall < limits.WEAK_RECALL_RATIO * chance


def has_hubs(direction: DirectionStats) -> bool:
    """Return whether a few candidates are returned for most queries; False if too few candidates are distinct."""
    hubs = direction.hubs
    if direction.distinct < limits.HUB_ITEMS:
        return False
    dead = hubs.antihub_fraction >= limits.ANTIHUBS and hubs.antihub_fraction > 2 * hubs.chance_antihub_fraction
    return hubs.skewness >= limits.HUB_SKEWNESS or dead or hubs.largest >= limits.HUB_FRACTION * hubs.queries


def recalls(measured: Measurements, name: str) -> list[float]:
    pairs = [stats for pair, stats in measured.pairs.items() if name in pair]
    return [direction.recall[1].mean for stats in pairs for direction in stats.directions.values()]


def by_culprit(measured: Measurements, judged: Pairs, bad: Pairs) -> Iterable[tuple[tuple[str, ...], Pairs]]:
    """Group bad pairs by a modality that matches no other, if all remaining modalities match each other."""
    group = {name: name for name in measured.modalities}
    for a, b in judged:
        if (a, b) not in bad:
            group = {name: group[a] if of == group[b] else of for name, of in group.items()}
    sizes = Counter(group.values())
    alone = [name for name, of in group.items() if sizes[of] == 1]
    left = dict(bad)
    if len(sizes) == len(alone) + 1:
        for name in alone:
            own = {pair: stats for pair, stats in left.items() if name in pair and not set(pair) <= set(alone)}
            if own:
                yield (name,), own
                left = {pair: stats for pair, stats in left.items() if pair not in own}
        left = {pair: stats for pair, stats in left.items() if not set(pair) <= set(alone)}
    if left:
        yield names_of(left), left
