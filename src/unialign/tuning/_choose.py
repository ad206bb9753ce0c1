"""Choose settings by validation metrics, averaged over seeds."""

from collections.abc import Mapping
from dataclasses import dataclass

from unialign.tuning._scores import pareto_front
from unialign.tuning._search import Search
from unialign.tuning._shipped import is_searched
from unialign.tuning._trial import Trial

# Number of the trial with the default settings.
DEFAULT = 0


@dataclass(frozen=True)
class Candidate:
    """Settings that were trained with all seeds.

    Attributes:
        metrics: means over the seeds.
        seeds: number of seeds; 1 for closed forms, which do not depend on the seed.
        score: mean of the utilities of all seeds.
    """

    number: int
    metrics: Mapping[str, float]
    seeds: int
    score: float


def front_of(search: Search) -> list[int]:
    """Return the numbers of the complete trials that no other one dominates, the best score first."""
    complete = [trial for trial in search.finished() if trial.state == "complete"]
    front = pareto_front({trial.number: search.goal.utilities(trial.metrics) for trial in complete})
    return sorted(front, key=lambda number: (-search.goal.score(search.first(number).metrics), number))


def finalists(search: Search) -> list[int]:
    """Return the numbers of the `top` best settings and the default. Settings on the front come first, ordered by the
    score; with a single metric, the others follow in the order of their values.
    """
    front = front_of(search)
    others = [t.number for t in search.finished() if t.state == "complete" and t.number not in front]
    others.sort(key=lambda number: (-search.goal.score(search.first(number).metrics), number))
    best = [*front, *others][: search.config.top]
    return best if DEFAULT in best or DEFAULT not in others else [*best, DEFAULT]


def candidates(search: Search) -> list[Candidate]:
    """Return the settings with all seeds, the chosen one first; of equal ones, the one with the lower number.

    A default whose objective is not searched comes last, since it is only compared.
    """
    numbers = finalists(search)
    seeds = search.common_seeds(numbers)
    found = []
    for number in numbers:
        used = seeds if search.first(number).train.epochs else seeds[:1]
        found.append(_candidate(search, [search.trials[number, seed] for seed in used]))

    def order(candidate: Candidate) -> tuple[bool, float, int]:
        is_compared = not is_searched(search.first(candidate.number).train, search.space)
        return is_compared, -candidate.score, candidate.number

    return sorted(found, key=order)


def _candidate(search: Search, trials: list[Trial]) -> Candidate:
    names = [name for name in trials[0].metrics if all(name in trial.metrics for trial in trials)]
    metrics = {name: sum(trial.metrics[name] for trial in trials) / len(trials) for name in names}
    score = sum(search.goal.score(trial.metrics) for trial in trials) / len(trials)
    return Candidate(trials[0].number, metrics, len(trials), score)
