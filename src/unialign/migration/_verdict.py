"""Decide from the estimates whether to switch to the mapped index."""

import math
from collections.abc import Sequence

from unialign.migration._interval import K, OverlapInterval
from unialign.migration._level import Level, describe_level

# If at least this fraction of the true first ten was among the candidates, known-item recall was above 95 % of that of
# full re-embedding in all measured cases (benchmarks/results/bridge.json).
CONTAINED = 0.75
# With fewer pairs, each additional pair improves the map considerably.
_ENOUGH = 240
# Widest interval that decides between the verdicts.
_WIDEST = 0.4
# Largest overlap above chance of unrelated pairs, in addition to this number of standard errors.
_UNRELATED, _ERRORS = 0.05, 4


def decide(
    overlap: OverlapInterval, contained: OverlapInterval, *, goal: float, candidates: int
) -> tuple[str, tuple[str, ...]]:
    """Return the verdict and its reasons; `contained` is the interval of the fraction of the true first ten among the
    candidates.
    """
    reasons = [
        f"The first 10 results are expected to overlap by {_range(overlap)} with those of full re-embedding; "
        f"the goal is {100 * goal:g} %.",
        f"The first {candidates} candidates are expected to contain {_range(contained)} of the true first 10.",
    ]
    if _look_unrelated(overlap):
        reasons.append(
            "The pairs look unrelated: check the order of `--pairs` and NEW first. The held-out mapped rows rank the "
            f"pairs no better than chance: the first 10 of {overlap.pairs:,} pairs overlap by "
            f"{100 * overlap.within_pairs:.0f} %. If the order is right, re-embed the index or keep the old model."
        )
        return "re-embed or stay", tuple(reasons)
    if overlap.low >= goal:
        return "switch now", (*reasons, "The mapped index can replace the old index without re-embedding.")
    undecided = _undecided(overlap, contained)
    if overlap.estimate >= goal:
        reasons.append(
            "The lower end of the interval is below the goal, so the switch is not safe. More random pairs can make "
            "the interval narrower."
        )
    if contained.estimate >= CONTAINED:
        outcome = "may miss" if overlap.estimate >= goal else "misses"
        reasons.append(
            f"The mapped ranking alone {outcome} the goal, but the new model can embed and order the first "
            f"{candidates} candidates of each query."
        )
        return f"switch with C = {candidates}", (*reasons, *undecided)
    reasons.append(
        f"Too many true results are outside the first {candidates} candidates, so re-embed the index or keep the old "
        "model."
    )
    if not undecided:
        reasons.append("The map does not improve much with more pairs if the old rows lack the information.")
    return "re-embed or stay", (*reasons, *undecided)


def _look_unrelated(overlap: OverlapInterval) -> bool:
    """Return whether the overlap@10 of the held-out mapped rows among the pairs is about that of a random ranking."""
    chance = K / overlap.pairs
    if chance >= 1:
        return False
    error = math.sqrt(chance * (1 - chance) / (K * overlap.queries))
    return overlap.within_pairs <= chance + _UNRELATED * (1 - chance) + _ERRORS * error


def _undecided(overlap: OverlapInterval, contained: OverlapInterval) -> tuple[str, ...]:
    wide = max(overlap.high - overlap.low, contained.high - contained.low) > _WIDEST
    if overlap.pairs >= _ENOUGH and not wide:
        return ()
    cause = f"{overlap.pairs:,} pairs are too few" if overlap.pairs < _ENOUGH else "an interval is wider than 40 points"
    more = max(_ENOUGH, 2 * overlap.pairs if wide else 0) - overlap.pairs
    return (
        f"The verdict is undecided, because {cause}. Embed {more:,} more random rows of the index (all other rows if "
        f"there are fewer), and build the bridge again. The rows of `--plan {more}` also improve the map, but do not "
        "make the interval narrower.",
    )


def level_reasons(levels: Sequence[Level], verdict: str) -> tuple[str, ...]:
    """Return reasons from task scores. The score of the candidates is an upper bound, so a high score does not show
    that the bridge is better than the old model.
    """
    sentences = [describe_level(level) for level in levels]
    for level in levels:
        if level.old is None or level.old <= level.mapped:
            continue
        if not verdict.startswith("switch with C") or (level.candidates is not None and level.old > level.candidates):
            sentences.append(f"Staying with the old model is better than the bridge for {level.task}.")
            continue
        bound = "" if level.candidates is None else f", and can reach {100 * level.candidates:.1f} % at most"
        sentences.append(
            f"The old model is better than the mapped ranking for {level.task}. The order by the new model is not "
            f"measured{bound}, so test it before the switch."
        )
    return tuple(sentences)


def _range(found: OverlapInterval) -> str:
    return f"{100 * found.estimate:.0f} % (between {100 * found.low:.0f} % and {100 * found.high:.0f} %)"
