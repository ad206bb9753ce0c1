"""Stop trials that are far below the median of earlier trials."""

import math
from collections.abc import Mapping, Sequence
from statistics import median

from unialign.tuning._scores import Goal
from unialign.tuning._trial import Trial

# Fractions of the steps after which a trial is compared with earlier trials.
SHARES = (0.25, 0.5)
# A trial is stopped if all of its metrics are worse than the medians by this factor.
_FACTOR = 1.25
# Number of earlier trials with an evaluation from which a median is used.
_LEAST_TRIALS = 5

# Fraction of the steps -> utility of each metric below which a trial is stopped.
Limits = Mapping[str, tuple[float, ...]]


def limits_of(seen: Sequence[Trial], goal: Goal) -> dict[str, tuple[float, ...]]:
    """Return the limits from earlier trials, without the fractions that too few trials have reached."""
    found = {}
    for share in map(str, SHARES):
        values = [goal.utilities(trial.early[share]) for trial in seen if share in trial.early]
        if len(values) >= _LEAST_TRIALS:
            found[share] = tuple(median(column) - math.log(_FACTOR) for column in zip(*values, strict=True))
    return found


def is_hopeless(metrics: Mapping[str, float], share: str, limits: Limits, goal: Goal) -> bool:
    """Whether all metrics are below their limits."""
    if share not in limits:
        return False
    return all(own < limit for own, limit in zip(goal.utilities(metrics), limits[share], strict=True))
