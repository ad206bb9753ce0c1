"""What counts as unpaired, collapsed and useless: findings that say one thing leave the others unsaid."""

from unialign.checkup._measure import Measured
from unialign.checkup._pair import Pair
from unialign.checkup._thresholds import COLLAPSED, GOOD_RECALL, UNPAIRED

__all__ = ["Pairs", "collapsed", "recalls", "unpaired", "useless"]

Pairs = dict[tuple[str, str], Pair]


def unpaired(pair: Pair) -> bool:
    """Whether true pairs are hardly told from random ones."""
    return bool(pair.directions) and pair.beaten < UNPAIRED


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
