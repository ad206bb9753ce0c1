"""Decide from the estimates whether to switch to the mapped index."""

from collections.abc import Sequence

from unialign.migration._interval import OverlapInterval
from unialign.migration._level import Level, describe_level

# If at least this share of the true first ten was among the candidates, known-item recall was above 95 % of that of
# full re-embedding in all measured cases (benchmarks/results/bridge.json).
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


def level_reasons(levels: Sequence[Level], verdict: str) -> tuple[str, ...]:
    """Return a sentence for each score, and a warning for each score at which the old model beats the mapped index.

    The score of the candidates is an upper bound, so a high score does not show that the bridge is better than the old
    model.
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
