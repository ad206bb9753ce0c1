"""Run the trials of a search, several at a time, and continue a killed search.

Trial n is proposed from the seed and n, and from the results of trials 0 to n - lag. Which trials exist, and their
results, therefore do not depend on the number of workers, on their speed or on interruptions.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from unialign.config import HyperparameterSearchConfig
from unialign.data import EmbeddingStore
from unialign.errors import DataError
from unialign.experiments import run_jobs
from unialign.tuning._draws import RandomDraw
from unialign.tuning._journal import append_trial, read_trials
from unialign.tuning._optuna import Distributions, TpeDraw
from unialign.tuning._propose import SearchSpace
from unialign.tuning._pruning import limits_of
from unialign.tuning._run_trial import TrialJob
from unialign.tuning._scores import Goal
from unialign.tuning._shipped import Shipped
from unialign.tuning._trial import Trial, trial_name
from unialign.tuning._variation import local_draw

_OF_LABELS = ("label_map", "v_measure", "nmi")
OnTrial = Callable[[Trial], None]


@dataclass
class Clock:
    """Time of a search in seconds, over all continuations."""

    before: float = 0.0
    _began: float = field(default_factory=time.monotonic)

    @property
    def elapsed(self) -> float:
        """Return the time so far."""
        return self.before + time.monotonic() - self._began


@dataclass
class Search:
    """A search in a results folder.

    Attributes:
        store: the store of the trials, which has no test rows.
        trials: (number, seed) -> finished trial.
    """

    config: HyperparameterSearchConfig
    folder: Path
    store: EmbeddingStore
    space: SearchSpace
    shipped: Sequence[Shipped]
    goal: Goal
    workers: int = 1
    device: str = "auto"
    on_trial: OnTrial | None = None
    trials: dict[tuple[int, int], Trial] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)

    def read(self) -> None:
        """Read the finished trials of the folder."""
        found = read_trials(self.folder)
        self.trials = {(trial.number, trial.seed): trial for trial in found}
        self.clock = Clock(max((trial.elapsed for trial in found), default=0.0))

    def run(self) -> None:
        """Run trials until the budget is used."""
        self._run(self._jobs())

    def repeat(self, numbers: Sequence[int]) -> None:
        """Train settings with the other seeds of the search, as many as the time allows; closed forms do not depend on
        the seed.
        """
        self._run(self._repetitions([number for number in numbers if self.first(number).train.epochs]))

    def common_seeds(self, numbers: Sequence[int]) -> tuple[int, ...]:
        """Return the seeds with which all of these settings were trained, if they need training."""
        trained = [number for number in numbers if self.first(number).train.epochs]
        return tuple(seed for seed in self.seeds if all((number, seed) in self.trials for number in trained))

    def _repetitions(self, numbers: Sequence[int]) -> Iterator[TrialJob]:
        for place, seed in enumerate(self.seeds[1:], 1):
            left = [number for number in numbers if (number, seed) not in self.trials]
            # Runs of this round, and of the comparison with the default.
            if left and self._exceeds_time(len(left) + 2 * (place + 1)):
                return
            for number in left:
                trial = replace(self.first(number), seed=seed, metrics={}, early={}, seconds=0.0, elapsed=0.0)
                yield self._job(trial, [])

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of the repetitions; the first one is that of the trials."""
        return tuple(range(self.config.seed, self.config.seed + self.config.seeds))

    def first(self, number: int) -> Trial:
        """Return a trial with the first seed."""
        return self.trials[number, self.config.seed]

    def finished(self) -> list[Trial]:
        """Return the trials with the first seed, in the order of their numbers."""
        return sorted((t for t in self.trials.values() if t.seed == self.config.seed), key=lambda trial: trial.number)

    def _run(self, jobs: Iterator[TrialJob | None]) -> None:
        for _, found in run_jobs(TrialJob.run, jobs, self.workers):
            trial = replace(found, elapsed=round(self.clock.elapsed, 3))
            self._check_defined(trial)
            append_trial(self.folder, trial)
            self.trials[trial.number, trial.seed] = trial
            if self.on_trial is not None:
                self.on_trial(trial)

    def _check_defined(self, trial: Trial) -> None:
        missing = [name for name in self.config.metric if trial.metrics and name not in trial.metrics]
        if missing:
            needs = "labels of at least two classes" if missing[0] in _OF_LABELS else "more modalities"
            raise DataError(
                f"{missing[0]!r} is undefined for the validation split of {self.store.name!r}, which lacks {needs}; "
                f"choose another metric"
            )

    def _jobs(self) -> Iterator[TrialJob | None]:
        number, seed = 0, self.config.seed
        while not self._is_over(number):
            if (number, seed) in self.trials:
                number += 1
                continue
            needed = range(number - self.config.lag + 1)
            if any((other, seed) not in self.trials for other in needed):
                yield None
                continue
            seen = [self.trials[other, seed] for other in needed]
            yield self._job(self._proposed(number, seen), seen)
            number += 1

    def _is_over(self, number: int) -> bool:
        limit, minutes = self.config.limit, self.config.minutes
        if limit is not None and number >= limit:
            return True
        if minutes is None or number == 0:
            return False
        # Keep time for the repetitions and the final runs, but use at least half of the time for trials.
        runs = (self.config.top + 1) * (self.config.seeds - 1) + 2 * self.config.seeds
        return self.clock.elapsed >= 30 * minutes and self._exceeds_time(runs)

    def _exceeds_time(self, runs: int) -> bool:
        """Whether further runs that are as long as the mean would end after the given time."""
        if self.config.minutes is None:
            return False
        trained = [t.seconds for t in self.finished() if t.state == "complete" and t.train.epochs]
        mean = sum(trained) / len(trained) if trained else 0.0
        return self.clock.elapsed + runs * mean / self.workers >= 60 * self.config.minutes

    def _job(self, trial: Trial, seen: Sequence[Trial]) -> TrialJob:
        prunes = self.config.pruning == "median" and trial.source != "shipped"
        limits = limits_of(seen, self.goal) if prunes else {}
        return TrialJob(trial, str(self.store.path), self.goal, limits, self.config.threads, self.device)

    def _proposed(self, number: int, seen: Sequence[Trial]) -> Trial:
        seed = self.config.seed
        if number < len(self.shipped):
            chosen = self.shipped[number]
            return Trial(number, seed, "shipped", chosen.name, {}, chosen.train)
        draw = self._draw(number, seen)
        train = self.space.propose(draw)
        return Trial(number, seed, self.config.sampler, trial_name(train), draw.params, train)

    def _draw(self, number: int, seen: Sequence[Trial]) -> RandomDraw | TpeDraw:
        if self.config.sampler == "random":
            return RandomDraw(self.config.seed, number)
        if self.config.sampler == "local":
            return local_draw(self.config.seed, number, seen, self.goal)
        # Shipped settings are not points of the search space. Pruned trials count with their last evaluation, which is
        # below the median.
        known, told = Distributions(), []
        for trial in seen:
            values = self.goal.utilities(trial.metrics)
            if trial.params and trial.state != "failed" and min(values) > -math.inf:
                known.add(trial.params, self.space)
                told.append((trial.params, values))
        return TpeDraw(self.config.seed, number, told, metrics=len(self.goal.metrics), distributions=known.found)
