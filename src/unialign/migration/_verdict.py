"""Decide from the estimates whether to switch to the mapped index."""

from collections.abc import Sequence

from unialign.migration._interval import OverlapInterval
from unialign.migration._level import Level, describe_level

# With this share of the true ten among the candidates, known-item recall stayed above 95 % of full re-embedding in
# all measured cases (benchmarks/results/bridge.json).
CONTAINED = 0.75


def decide(
    overlap: OverlapInterval, contained: OverlapInterval, *, goal: float, candidates: int
) -> tuple[str, tuple[str, ...]]:
    """Return the verdict and its reasons as sentences.

    Args:
        overlap: interval of overlap@10 with the ranking of full re-embedding.
        contained: interval of the share of the true first ten among the candidates.
        goal: required overlap@10, in (0, 1].
    """
    reasons = [
        f"The first 10 results are expected to agree with those of full re-embedding to {_range(overlap)}; "
        f"the goal is {100 * goal:g} %.",
        f"The first {candidates} candidates are expected to hold {_range(contained)} of the true first 10.",
    ]
    if overlap.estimate >= goal:
        if overlap.low < goal:
            reasons.append("The lower end of the interval is below the goal, so more pairs would make this safer.")
        return "switch now", (*reasons, "The mapped index can replace the old index without re-embedding.")
    if contained.estimate >= CONTAINED:
        reasons.append(
            f"The mapped ranking alone misses the goal, but the new model can embed and order the first {candidates} "
            "candidates of each query."
        )
        return f"switch with C = {candidates}", tuple(reasons)
    reasons.append(
        f"Too many true results are outside the first {candidates} candidates, so re-embed the index or keep the old "
        "model. The map does not improve much with more pairs if the old rows lack the information."
    )
    return "re-embed or stay", tuple(reasons)


def level_reasons(levels: Sequence[Level]) -> tuple[str, ...]:
    """Return a sentence for each level, and a warning if the old model is better than the mapped index."""
    sentences = [describe_level(level) for level in levels]
    for level in levels:
        best = level.mapped if level.candidates is None else max(level.mapped, level.candidates)
        if level.old is not None and level.old > best:
            sentences.append(f"Staying with the old model is better than the bridge for {level.task}.")
    return tuple(sentences)


def _range(found: OverlapInterval) -> str:
    return f"{100 * found.estimate:.0f} % (between {100 * found.low:.0f} % and {100 * found.high:.0f} %)"
