"""What counts as unpaired, collapsed and useless: findings that say one thing leave the others unsaid."""

from collections import Counter
from collections.abc import Iterable

from unialign.diagnostics._measure import Measured
from unialign.diagnostics._pair import Pair
from unialign.diagnostics._thresholds import COLLAPSED, GOOD_RECALL, SCATTERED, UNPAIRED

__all__ = ["Pairs", "by_culprit", "collapsed", "in_blocks", "mispaired", "recalls", "unpaired", "useless"]

Pairs = dict[tuple[str, str], Pair]


def unpaired(pair: Pair) -> bool:
    """Whether true pairs are hardly told from random ones."""
    return bool(pair.directions) and pair.beaten < UNPAIRED


def in_blocks(measured: Measured, pair: tuple[str, str]) -> bool:
    """Whether one of the two has stretches of rows that are paired at random."""
    return any(order.blocks and set(names) & set(pair) for names, order in measured.orders.items())


def mispaired(measured: Measured, pair: tuple[str, str]) -> bool:
    """Whether so many rows are wrongly paired that what retrieval reaches says nothing."""
    scattered = any(o.random_share >= SCATTERED and set(names) & set(pair) for names, o in measured.orders.items())
    p = measured.pairs[pair]
    return unpaired(p) or bool(p.shifts) or scattered or in_blocks(measured, pair)


def by_culprit(measured: Measured, judged: Pairs, bad: Pairs) -> Iterable[tuple[tuple[str, ...], Pairs]]:
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


def collapsed(measured: Measured, name: str) -> bool:
    """Whether all rows of a modality point one way."""
    single = measured.singles[name]
    return single.copies.distinct == 1 or (single.cosine is not None and single.cosine.mean >= COLLAPSED)


def useless(measured: Measured, name: str) -> bool:
    """Whether a modality has collapsed so that ranks do not work either."""
    found = recalls(measured, name)
    return collapsed(measured, name) and not (found and min(found) >= GOOD_RECALL)


def recalls(measured: Measured, name: str) -> list[float]:
    """R@1 of every direction that a modality is part of."""
    return [
        direction.recall[1].mean
        for pair, p in measured.pairs.items()
        if name in pair
        for direction in p.directions.values()
    ]
